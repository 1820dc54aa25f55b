"""Replaces result files, such as weights/best.pt, on behalf of one life of the job."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from distill_api.errors import TrainerError
from distill_trainer.checkpoint.store.fence import Fence, check_not_superseded
from distill_trainer.checkpoint.store.storage import atomic_write


def replace_files(files: Mapping[Path, bytes | memoryview], directory: Path, fence: Fence) -> None:
    """Replace each file by its content, atomically and durably. `directory` has the fence, `fence` is the writer's.

    Raises Retryable(Superseded) once another life of the job has raised the fence; what it finds then stays. Raises
    Permanent (read-only, full) or Retryable, naming the path.
    """

    guard = partial(check_not_superseded, directory, fence)
    for path, content in files.items():
        try:
            atomic_write(path, content, guard)
        except TrainerError:
            guard()  # a newer life deletes unfinished files once it has raised the fence
            raise
