"""Keeps Ultralytics to itself: no downloads, no pip, no telemetry, no files outside the scratch directory.

Ultralytics reads these variables when it is imported, so `distill_trainer/__init__.py` sets them first.
"""

import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables that make an import of ultralytics free of side effects. Idempotent.

    A settings directory that the user chose is kept. Otherwise each rank gets its own below the scratch directory,
    because Ultralytics rewrites its settings file without a lock that spans processes.
    """
    ours = Path(tempfile.gettempdir()) / f"distill-trainer-{os.getuid()}"
    chosen = environ.get("YOLO_CONFIG_DIR")
    if chosen is None or Path(chosen).parent == ours:
        directory = ours / f"rank-{environ.get('RANK', 'none')}"
        directory.mkdir(parents=True, exist_ok=True)
        environ["YOLO_CONFIG_DIR"] = str(directory)
    environ.setdefault("MPLCONFIGDIR", environ["YOLO_CONFIG_DIR"])
    environ["YOLO_OFFLINE"] = "true"  # also switches its usage events off
    environ["YOLO_AUTOINSTALL"] = "false"
    environ["ULTRALYTICS_SAFE_LOAD"] = "true"
    environ.setdefault("YOLO_VERBOSE", "false")
