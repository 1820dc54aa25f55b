"""The Checkpointer: saves and restores the state of a training run, and writes its weights in the background."""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_api.spec.rules import corrections
from distill_api.spec.rules.corrections import Change
from distill_trainer.checkpoint.buffer import SharedBuffer
from distill_trainer.checkpoint.format import encoding, layout
from distill_trainer.checkpoint.format.versions import Versions
from distill_trainer.checkpoint.reading import LoadedCheckpoint, check_formats, check_present, load_newest
from distill_trainer.checkpoint.store.fence import check_fence, check_not_superseded, raise_fence
from distill_trainer.checkpoint.store.storage import discard, probe, storage_errors
from distill_trainer.checkpoint.writer.background import BackgroundWriter, Response

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CommitCost:
    """How much time a commit takes from training."""

    stall_seconds: float
    """How long the snapshot blocked training."""
    writer_cpu_seconds: float
    """CPU time of the writer process, which competes with training on CPUs."""


class CheckpointEvents(Protocol):
    """Callbacks for checkpoint events. Called from any thread."""

    def checkpoint_committed(self, step: int, at: datetime, seconds: float) -> None:
        """A checkpoint was committed; that took `seconds` in the background."""

    def checkpoint_stalled(self, seconds: float) -> None:
        """A snapshot blocked training for `seconds`."""

    def checkpoint_failed(self) -> None:
        """A commit failed."""

    def checkpoint_fell_back(self, why: str) -> None:
        """A damaged checkpoint was skipped on resume."""

    def versions_changed(self, changes: Mapping[str, tuple[str, str]]) -> None:
        """The run resumes with other versions. `changes`: name -> (version in the checkpoint, version now)."""

    def spec_changed(self, changes: Iterable[Change]) -> None:
        """The run resumes with another spec than wrote the checkpoint."""


def mismatch(step: int, what: str) -> Permanent:
    """The error of a run that would give the checkpoint of a step another meaning."""
    return Permanent(
        Reason.CHECKPOINT_MISMATCH,
        f"the checkpoint of step {step} is of another run: {what}; change it back, or create a new job for the new "
        "values",
    )


class Checkpointer:
    """Saves the state of one attempt in `directory`, and loads the job's newest state from it.

    Only one rank is the writer. On the others `snapshot` and `wait` do nothing, and the volume is not changed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        uid: str,
        attempt: int,
        keep: int,
        is_writer: bool,
        events: CheckpointEvents,
        definition: Mapping[str, Any] | None = None,
        committed_before: int = 0,
    ) -> None:
        """`definition`: that of the run (`rules.corrections`), to record and compare; None for neither.
        `committed_before`: the newest step that earlier attempts are known to have committed.

        The writer probes the volume, takes its execution number, raises the fence and deletes what earlier lives of
        the job left behind.

        Raises Permanent if the volume is read-only or full, if the directory belongs to another job, if its
        checkpoints have an unknown format, or if there are none although some were committed (the volume is then
        unchanged in both cases). Raises Retryable if a newer attempt exists, if this one is being started again, and
        for I/O errors.
        """
        self.directory = directory
        self.committed_step = 0
        """Newest committed step known to this rank; 0 for none."""
        self.cost: CommitCost | None = None
        """Cost of the newest commit; None before the first, and on ranks that are not the writer."""
        self.committed_at: datetime | None = None
        self.execution: int | None = None
        """Number of this life of the job's gang, on the writer; None on other ranks."""
        self._uid = uid
        self._stalled = 0.0
        self._keep = keep
        self._events = events
        self._definition = dict(definition) if definition is not None else None
        self._versions = Versions.present(torch.__version__)
        self._specs: list[encoding.TensorSpec] | None = None
        self._views: list[torch.Tensor] = []
        self._writer: BackgroundWriter | None = None
        if is_writer:
            check_fence(directory, uid, attempt)
            with storage_errors(directory):
                check_formats(directory)
                check_present(directory, committed_before)
            probe(directory)
            self._fence = raise_fence(directory, uid, attempt)
            self.execution = self._fence.execution
            with storage_errors(directory):
                for path in layout.leftovers(directory):
                    discard(path)
            self._buffer, self._file = SharedBuffer(), SharedBuffer()
            buffers = self._buffer.descriptor, self._file.descriptor
            self._writer = BackgroundWriter(buffers, self._fence, self._committed)

    @property
    def busy(self) -> bool:
        """Whether a commit or a file is being written. A snapshot would wait for it."""
        return self._writer is not None and self._writer.busy

    @property
    def pending_seconds(self) -> float:
        """How long the current commit or file has been in progress; 0 if there is none."""
        return self._writer.pending_seconds if self._writer is not None else 0.0

    @property
    def writer_pid(self) -> int | None:
        """Process ID of the writer process; None on other ranks."""
        return self._writer.pid if self._writer else None

    def check_fence(self) -> None:
        """On the writer, raise Retryable(Superseded) if another life of the job has raised the fence since."""
        if self._writer is not None:
            check_not_superseded(self.directory, self._fence)

    def newest(self) -> LoadedCheckpoint | None:
        """Load the newest intact checkpoint, with tensors on the CPU; None for a fresh start.

        Raises Permanent if there are checkpoints but none is readable, if they belong to another job, or if the newest
        has an unknown format or is of another run.
        """
        loaded = load_newest(self.directory, self._uid, self._events.checkpoint_fell_back)
        if loaded is not None:
            self._compare_runs(loaded)
            self.committed_step, self.committed_at = loaded.step, loaded.manifest.time
            self._compare_versions(loaded)
        return loaded

    def snapshot(self, state: Any, step: int) -> float:
        """Copy `state` and commit it as `step` in the background. Returns the seconds that this blocked.

        Waits first for a commit or file in progress; check `busy` to avoid that. So whatever `state` says of files is
        true: they are durable before it is. `state` may change as soon as this returns. Raises the error of the
        previous commit or file, or TypeError for a state that cannot be encoded.
        """
        if self._writer is None:
            return 0.0
        started = time.perf_counter()
        self.wait()
        plan = encoding.plan(state)
        structure = plan.structure_bytes()
        on_device = any(tensor.is_cuda for tensor in plan.tensors)
        memory = self._buffer.reserve(plan.size + len(structure), pinned=on_device)
        if plan.specs != self._specs or not self._views_use(memory):
            self._specs, self._views = plan.specs, encoding.views(memory, plan.specs)
            memory[: plan.size].zero_()  # zero the gaps between tensors, so that equal states make equal files
        for target, source in zip(self._views, plan.tensors, strict=True):
            target.copy_(source, non_blocking=True)
        if on_device:
            torch.cuda.synchronize()
        if structure:
            memory[plan.size : plan.size + len(structure)] = torch.frombuffer(bytearray(structure), dtype=torch.uint8)
        self._writer.submit(
            {
                "buffer": self._buffer.descriptor,
                "directory": str(self.directory),
                "fence": asdict(self._fence),
                "step": step,
                "keep": self._keep,
                "versions": asdict(self._versions),
                "run": self._definition,
                "tensorBytes": plan.size,
                "structureBytes": len(structure),
            }
        )
        self._stalled = stalled = time.perf_counter() - started
        self._events.checkpoint_stalled(stalled)
        return stalled

    def replace_files(self, files: Mapping[Path, bytes]) -> None:
        """Replace each file by its content in the background, atomically. Only the writer does.

        Files are replaced in their order and that of the calls, after a commit in progress and before any later one.
        Waits for the files of an earlier call. Raises the error of the previous commit or file, as `wait`.
        """
        if self._writer is None:
            return
        self._wait(buffer=self._file.descriptor)
        contents = {id(content): content for content in files.values()}  # each once: best.pt often is last.pt
        ends = dict(zip(contents, accumulate(map(len, contents.values())), strict=True))
        size = sum(map(len, contents.values()))
        memory = self._file.reserve(size, pinned=False).numpy()
        for number, content in contents.items():
            memory[ends[number] - len(content) : ends[number]] = np.frombuffer(content, dtype=np.uint8)
        self._writer.submit(
            {
                "buffer": self._file.descriptor,
                "bytes": size,
                "directory": str(self.directory),
                "fence": asdict(self._fence),
                "files": {str(path): (ends[id(c)] - len(c), ends[id(c)]) for path, c in files.items()},
            }
        )

    def wait(self, timeout: float | None = None) -> int:
        """Wait until no commit or file is in progress and return the committed step.

        Raises Permanent or Retryable, naming the path, if one failed, and Retryable after `timeout` seconds.
        """
        self._wait(timeout)
        return self.committed_step

    def close(self) -> None:
        """Finish what was submitted and end the writer process. Does not raise its errors; `wait` does."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._views, self._specs = [], None
            self._buffer.close()
            self._file.close()

    def _wait(self, timeout: float | None = None, buffer: int | None = None) -> None:
        if self._writer is not None:
            try:
                self._writer.wait(timeout, buffer)
            except Exception:
                self._events.checkpoint_failed()
                raise

    def _compare_runs(self, loaded: LoadedCheckpoint) -> None:
        recorded = loaded.manifest.run
        if self._definition is None or recorded is None:
            return
        found = corrections.changes(recorded, self._definition)
        refused = [change for change in found if not change.allowed]
        if refused:
            raise mismatch(loaded.step, "; ".join(map(str, refused)))
        if found:
            log.warning(
                "the checkpoint of step %d was written with another spec (%s); the new values hold from here on",
                loaded.step,
                "; ".join(map(str, found)),
            )
            self._events.spec_changed(found)

    def _compare_versions(self, loaded: LoadedCheckpoint) -> None:
        changes = loaded.manifest.versions.changed_to(self._versions)
        if changes:
            log.warning(
                "the checkpoint of step %d was written with other versions (%s); results may differ bitwise from an "
                "uninterrupted run",
                loaded.step,
                ", ".join(f"{name} {before}, now {now}" for name, (before, now) in changes.items()),
            )
            self._events.versions_changed(changes)

    def _views_use(self, memory: torch.Tensor) -> bool:
        return bool(self._views) and self._views[0].untyped_storage().data_ptr() == memory.data_ptr()

    def _committed(self, response: Response) -> None:
        step, seconds = response["step"], response["seconds"]
        at = datetime.fromisoformat(response["committedAt"]).astimezone(UTC)
        self.committed_step, self.committed_at = step, at
        self.cost = CommitCost(self._stalled, response["cpuSeconds"])
        log.info("committed step %d in %.2f s to %s", step, seconds, layout.committed(self.directory, step))
        self._events.checkpoint_committed(step, at, seconds)
