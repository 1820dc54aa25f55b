"""Runs one Ultralytics export: python -m distill_trainer.outputs.export.process WEIGHTS.pt OPTIONS

OPTIONS are its arguments as JSON. The export is written to the folder of WEIGHTS.pt. On failure the last line of the
output is the error.
"""

from __future__ import annotations

import json
import os
import sys

# The parent process has checked the packages; Ultralytics would also require optional ones.
os.environ["ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS"] = "true"

from distill_trainer.process import offline  # before ultralytics: sets variables that it reads when imported


def main(weights: str, options: str) -> int:
    """Export, and return the exit code."""
    from ultralytics import YOLO

    offline.stay_offline()
    try:
        YOLO(weights).export(**json.loads(options), device="cpu")
    except Exception as error:  # noqa: BLE001  the parent reports it
        print(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
