"""Names of files and folders in a checkpoint directory.

fence               the newest attempt, the only one that may commit
step-<N>/           a committed checkpoint: manifest.json, structure.pt, tensors.bin
step-<N>.a<A>.tmp/  a checkpoint that attempt A has not committed yet
step-<N>.replaced/  a committed checkpoint that is being replaced by another one of the same step
step-<N>.damaged/   a checkpoint that does not match its digests
trash-*             files and folders that are being deleted
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
    """Folder in which an attempt writes the checkpoint of a step before it commits it."""
    return directory / f"step-{step}.a{attempt}.tmp"


def replaced(directory: Path, step: int) -> Path:
    """Folder of a committed checkpoint while another one of the same step takes its name."""
    return directory / f"step-{step}.replaced"


def readable(directory: Path, step: int) -> Path:
    """Folder from which to read a committed step: the replaced checkpoint if a replacement was interrupted."""
    path = committed(directory, step)
    return path if path.exists() else replaced(directory, step)


def damaged(directory: Path, step: int) -> Path:
    """Folder to which a damaged checkpoint is renamed."""
    return directory / f"step-{step}.damaged"


def committed_steps(directory: Path) -> list[int]:
    """Steps with a committed checkpoint, oldest first; empty if the directory does not exist."""
    return sorted(set(_steps(directory, _COMMITTED)))


def damaged_steps(directory: Path) -> list[int]:
    """Steps with a damaged checkpoint, oldest first."""
    return _steps(directory, _DAMAGED)


def leftovers(directory: Path) -> list[Path]:
    """What interrupted attempts left behind: uncommitted, replaced and partly deleted checkpoints."""
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
