"""One export by Ultralytics: python -m distill_trainer.outputs.export.process WEIGHTS.pt OPTIONS

OPTIONS is the JSON of its arguments. The file appears beside WEIGHTS.pt. A failure is the last line of the output.
"""

from __future__ import annotations

import json
import os
import sys

# The parent has looked for what is needed; Ultralytics would also ask for what it only might need.
os.environ["ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS"] = "true"

from distill_trainer.process import offline  # first: it sets what ultralytics reads when it is imported


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
