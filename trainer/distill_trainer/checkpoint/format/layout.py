"""Names of files and folders in a checkpoint directory.

fence               number of the newest attempt that may commit
step-<N>/           a committed checkpoint: manifest.json, structure.pt, tensors.bin
step-<N>.a<A>.tmp/  one that attempt A has not committed yet
step-<N>.replaced/  a committed one that is being replaced by another of the same step
step-<N>.damaged/   one that failed its digest and was set aside
trash-*             something on its way to be deleted
"""

import re
from pathlib import Path, PurePath
from typing import Final

from distill_api.constants import JobFile

FENCE: Final = PurePath(JobFile.FENCE).name
MANIFEST: Final = "manifest.json"
STRUCTURE: Final = "structure.pt"
TENSORS: Final = "tensors.bin"

_COMMITTED = re.compile(r"step-(\d+)(?:\.replaced)?")
_UNCOMMITTED = re.compile(r"step-\d+\.a\d+\.tmp")
_REPLACED = re.compile(r"step-(\d+)\.replaced")
_DAMAGED = re.compile(r"step-(\d+)\.damaged")


def committed(directory: Path, step: int) -> Path:
    """Folder of the committed checkpoint of a step."""
    return directory / f"step-{step}"


def uncommitted(directory: Path, step: int, attempt: int) -> Path:
    """Folder in which an attempt prepares the checkpoint of a step."""
    return directory / f"step-{step}.a{attempt}.tmp"


def replaced(directory: Path, step: int) -> Path:
    """Where a committed checkpoint waits while another of the same step takes its name."""
    return directory / f"step-{step}.replaced"


def readable(directory: Path, step: int) -> Path:
    """Folder to read a committed step from: where a replacement was interrupted, the older checkpoint."""
    path = committed(directory, step)
    return path if path.exists() else replaced(directory, step)


def damaged(directory: Path, step: int) -> Path:
    """Where a checkpoint that failed its digest is set aside."""
    return directory / f"step-{step}.damaged"


def committed_steps(directory: Path) -> list[int]:
    """Steps with a committed checkpoint, oldest first; empty where the directory does not exist."""
    return sorted(set(_steps(directory, _COMMITTED)))


def damaged_steps(directory: Path) -> list[int]:
    """Steps whose checkpoint was set aside, oldest first."""
    return _steps(directory, _DAMAGED)


def leftovers(directory: Path) -> list[Path]:
    """What dead attempts left: uncommitted checkpoints, replaced ones and half-deleted ones."""
    replaced_steps = [step for step in _steps(directory, _REPLACED) if committed(directory, step).exists()]
    return [
        *(path for path in directory.iterdir() if _UNCOMMITTED.fullmatch(path.name) or path.name.startswith("trash-")),
        *(replaced(directory, step) for step in replaced_steps),
    ]


def _steps(directory: Path, pattern: re.Pattern[str]) -> list[int]:
    if not directory.is_dir():
        return []
    matches = (pattern.fullmatch(path.name) for path in directory.iterdir())
    return sorted(int(match[1]) for match in matches if match)
