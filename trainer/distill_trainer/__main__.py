"""`python -m distill_trainer`: one attempt on this node. See launch.py."""

from distill_trainer.process.launcher.launch import exit_process, main

if __name__ == "__main__":
    exit_process(main())
