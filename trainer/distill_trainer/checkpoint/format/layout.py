"""Names of files and folders in a checkpoint directory.

fence                  the life of the job's gang that may commit
execution-<E>          the claim of that life, or of a later one, to its execution number E; see store/fence.py
step-<N>/              a committed checkpoint: manifest.json, structure.pt, tensors.bin
step-<N>.a<A><E>.tmp/  a checkpoint that execution E (5 digits or more) of attempt A has not committed yet
step-<N>.replaced/     a committed checkpoint that is being replaced by another one of the same step
step-<N>.damaged/      a checkpoint that does not match its digests
trash-*                files and folders that are being deleted
"""

import re
from pathlib import Path, PurePath
from typing import Final

from distill_api.constants import JobFile

FENCE: Final = PurePath(JobFile.FENCE).name
MANIFEST: Final = "manifest.json"
STRUCTURE: Final = "structure.pt"
TENSORS: Final = "tensors.bin"

_EXECUTION = re.compile(r"execution-(\d+)")
_COMMITTED = re.compile(r"step-(\d+)(?:\.replaced)?")
_UNCOMMITTED = re.compile(r"step-\d+\.a\d+\.tmp")
_REPLACED = re.compile(r"step-(\d+)\.replaced")
_DAMAGED = re.compile(r"step-(\d+)\.damaged")


def committed(directory: Path, step: int) -> Path:
    """Folder of the committed checkpoint of a step."""
    return directory / f"step-{step}"


def uncommitted(directory: Path, step: int, attempt: int, execution: int) -> Path:
    """Folder in which a life of the job writes the checkpoint of a step before it commits it.

    No other life has the same name for it, and trainers of 0.1.0 delete folders of such names, too.
    """
    return directory / f"step-{step}.a{attempt}{execution:05}.tmp"


def execution(directory: Path, number: int) -> Path:
    """File by which a life of the job claims its execution number."""
    return directory / f"execution-{number}"


def executions(directory: Path) -> dict[int, Path]:
    """Claimed execution numbers with their files, lowest first; empty if the directory does not exist."""
    return {number: execution(directory, number) for number in _steps(directory, _EXECUTION)}


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
