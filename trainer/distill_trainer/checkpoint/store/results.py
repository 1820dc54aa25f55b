"""Replaces result files, such as weights/best.pt, on behalf of one life of the job."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from distill_api.errors import TrainerError
from distill_trainer.checkpoint.store.fence import Fence, check_not_superseded
from distill_trainer.checkpoint.store.storage import atomic_write


def replace_files(paths: Iterable[Path], content: bytes | memoryview, directory: Path, fence: Fence) -> None:
    """Replace each of `paths` by `content`, atomically and durably. `directory` has the fence, `fence` is the writer's.

    Raises Retryable(Superseded) once another life of the job has raised the fence; what it finds then stays. Raises
    Permanent (read-only, full) or Retryable, naming the path.
    """

    guard = partial(check_not_superseded, directory, fence)
    for path in paths:
        try:
            atomic_write(path, content, guard)
        except TrainerError:
            guard()  # a newer life deletes unfinished files once it has raised the fence
            raise
