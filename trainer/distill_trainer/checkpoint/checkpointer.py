"""The one object through which a training run saves and finds its state."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from distill_api.errors import Retryable
from distill_api.reasons import Reason
from distill_trainer.checkpoint.buffer import SharedBuffer
from distill_trainer.checkpoint.format import encoding, layout
from distill_trainer.checkpoint.format.versions import Versions
from distill_trainer.checkpoint.reading import Loaded, check_formats, newest_readable
from distill_trainer.checkpoint.store.fence import check_fence, raise_fence, read_fence, superseded
from distill_trainer.checkpoint.store.storage import discard, naming_errors, probe
from distill_trainer.checkpoint.writer.background import Answer, BackgroundWriter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CommitCost:
    """What a commit costs the training."""

    stall_seconds: float
    """The training stood still for the snapshot."""
    writer_cpu_seconds: float
    """Processor time of the writer process, which training on CPUs goes without."""


class CheckpointEvents(Protocol):
    """Who hears of checkpoints: metrics and status. Called from any thread."""

    def checkpoint_committed(self, step: int, at: datetime, seconds: float) -> None:
        """A checkpoint is durable; it took `seconds` in the background."""

    def checkpoint_stalled(self, seconds: float) -> None:
        """The training stood still this long for a snapshot."""

    def checkpoint_failed(self) -> None:
        """A checkpoint could not be committed."""

    def checkpoint_fell_back(self, why: str) -> None:
        """A damaged checkpoint was stepped over."""

    def versions_changed(self, changes: Mapping[str, tuple[str, str]]) -> None:
        """The run goes on with other versions; by name, those that wrote its checkpoint and the present ones."""


class Checkpointer:
    """Saves the state of one attempt in `directory`, and finds the newest state of the job there.

    On ranks that are not the writer, `snapshot` and `wait` do nothing and nothing on the disk is touched.
    """

    def __init__(
        self, directory: Path, *, uid: str, attempt: int, keep: int, is_writer: bool, metrics: CheckpointEvents
    ) -> None:
        """For the writer: probe the volume, raise the fence and clear away what dead attempts left.

        Raises Permanent (read-only, full, another job's directory; or checkpoints of an unknown format, and then
        nothing is changed) or Retryable (a newer attempt exists, I/O error).
        """
        self.directory = directory
        self.committed_step = 0
        """Newest step known to be safe in the directory; 0 for none."""
        self.cost: CommitCost | None = None
        """What the newest commit has cost; None before the first, and on ranks that do not write."""
        self.committed_at: datetime | None = None
        self._uid = uid
        self._attempt = attempt
        self._stalled = 0.0
        self._keep = keep
        self._events = metrics
        self._versions = Versions.present(torch.__version__)
        self._specs: list[encoding.TensorSpec] | None = None
        self._views: list[torch.Tensor] = []
        self._writer: BackgroundWriter | None = None
        if is_writer:
            check_fence(directory, uid, attempt)
            with naming_errors(directory):
                check_formats(directory)
            probe(directory)
            self._fence = raise_fence(directory, uid, attempt)
            with naming_errors(directory):
                for path in layout.leftovers(directory):
                    discard(path)
            self._buffer = SharedBuffer()
            self._writer = BackgroundWriter(self._buffer.descriptor, attempt, self._committed)

    @property
    def busy(self) -> bool:
        """Whether a commit is in flight: a snapshot now would first wait for it."""
        return self._writer is not None and self._writer.busy

    @property
    def in_flight_seconds(self) -> float:
        """For how long the commit in flight has been under way; 0 without one."""
        return self._writer.in_flight_seconds if self._writer is not None else 0.0

    @property
    def writer_pid(self) -> int | None:
        """Process id of the writer process; None on other ranks."""
        return self._writer.pid if self._writer else None

    def check_fence(self) -> None:
        """Raise Retryable(Superseded) on the writer when another attempt has started since."""
        fence = read_fence(self.directory) if self._writer is not None else None
        if fence is not None and fence != self._fence:
            raise Retryable(Reason.SUPERSEDED, superseded(self._attempt, fence.attempt))

    def newest(self) -> Loaded | None:
        """The newest checkpoint that matches its digests, on the CPU; None for a fresh start.

        Raises Permanent when there are checkpoints but none is readable, when they are another job's, or when the one
        to read has an unknown format.
        """
        loaded = newest_readable(self.directory, self._uid, self._events.checkpoint_fell_back)
        if loaded is not None:
            self.committed_step, self.committed_at = loaded.step, loaded.manifest.time
            self._compare_versions(loaded)
        return loaded

    def snapshot(self, state: Any, step: int) -> float:
        """Copy `state` away and let the background commit it as `step`; return the seconds the caller stood still.

        A commit still in flight is waited for first, so no snapshot is ever dropped; ask `busy` to skip instead.
        `state` may change as soon as this returns. Raises what went wrong with the commit before, or TypeError for
        a state that could not be read back.
        """
        if self._writer is None:
            return 0.0
        started = time.perf_counter()
        self.wait()
        plan = encoding.plan(state)
        structure = plan.structure_bytes()
        on_device = any(tensor.is_cuda for tensor in plan.tensors)
        memory = self._buffer.reserve(plan.size + len(structure), pinned=on_device)
        if plan.specs != self._specs or not self._lies_in(memory):
            self._specs, self._views = plan.specs, encoding.views(memory, plan.specs)
            memory[: plan.size].zero_()  # equal states make equal files, whatever lay between the tensors before
        for target, source in zip(self._views, plan.tensors, strict=True):
            target.copy_(source, non_blocking=True)
        if on_device:
            torch.cuda.synchronize()
        if structure:
            memory[plan.size : plan.size + len(structure)] = torch.frombuffer(bytearray(structure), dtype=torch.uint8)
        self._writer.submit(
            {
                "directory": str(self.directory),
                "fence": asdict(self._fence),
                "step": step,
                "keep": self._keep,
                "versions": asdict(self._versions),
                "tensorBytes": plan.size,
                "structureBytes": len(structure),
            }
        )
        self._stalled = stalled = time.perf_counter() - started
        self._events.checkpoint_stalled(stalled)
        return stalled

    def wait(self, timeout: float | None = None) -> int:
        """Return the committed step when nothing is in flight any more.

        Raises Permanent or Retryable, naming the path, when the last snapshot could not be committed, and Retryable
        when that is not known within `timeout` seconds.
        """
        if self._writer is not None:
            try:
                self._writer.wait(timeout)
            except Exception:
                self._events.checkpoint_failed()
                raise
        return self.committed_step

    def close(self) -> None:
        """Finish what is in flight and end the writer process. Errors of the last commit are `wait`'s to tell."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._views, self._specs = [], None
            self._buffer.close()

    def _compare_versions(self, loaded: Loaded) -> None:
        changes = loaded.manifest.versions.changed_to(self._versions)
        if changes:
            log.warning(
                "the checkpoint of step %d was written with other versions (%s); from here on the run need not be "
                "bitwise equal to one that was not interrupted",
                loaded.step,
                ", ".join(f"{name} {before}, now {now}" for name, (before, now) in changes.items()),
            )
            self._events.versions_changed(changes)

    def _lies_in(self, memory: torch.Tensor) -> bool:
        return bool(self._views) and self._views[0].untyped_storage().data_ptr() == memory.data_ptr()

    def _committed(self, answer: Answer) -> None:
        at = datetime.fromisoformat(answer["committedAt"]).astimezone(UTC)
        self.committed_step, self.committed_at = answer["step"], at
        self.cost = CommitCost(self._stalled, answer["cpuSeconds"])
        log.info(
            "committed step %d in %.2f s to %s",
            answer["step"],
            answer["seconds"],
            layout.committed(self.directory, answer["step"]),
        )
        self._events.checkpoint_committed(answer["step"], at, answer["seconds"])
