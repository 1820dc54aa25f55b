"""The container's entry point, with ranks of fake_rank.py."""

import sys
from pathlib import Path

from distill_trainer.launch import exit_process, main

if __name__ == "__main__":
    exit_process(main([sys.executable, str(Path(__file__).with_name("fake_rank.py"))]))
