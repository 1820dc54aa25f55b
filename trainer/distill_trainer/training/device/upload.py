"""Brings batches to the device; on CUDA those of the next step while the device computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distill_trainer.training.device.preprocess import Preprocess


class Uploaded(NamedTuple):
    """A preprocessed shard batch."""

    batch: dict[str, Any]
    ready: torch.cuda.Event | None = None
    """Recorded after the batch is written, if that happens on another CUDA stream."""

    def synchronize(self) -> dict[str, Any]:
        """Make the current CUDA stream wait for the batch, and return a copy of the dict. Does not block the host."""
        if self.ready is not None:
            stream = torch.cuda.current_stream(self.batch["img"].device)
            stream.wait_event(self.ready)
            for value in self.batch.values():
                if isinstance(value, Tensor):
                    value.record_stream(stream)  # the allocator must not reuse its memory before this stream is done
        return dict(self.batch)


class Uploads:
    """A rank's shard batches, step by step."""

    def __init__(
        self, batches: Iterator[list[dict[str, Any]]], preprocess: Preprocess, step: int, *, ahead: bool
    ) -> None:
        """`batches` begin with those of `step`. `ahead`: preprocess a step's batches when `load_next` is called."""
        self._batches, self._preprocess, self._step, self._ahead = batches, preprocess, step, ahead
        self._stream = torch.cuda.Stream(preprocess.device) if preprocess.device.type == "cuda" else None
        self._next: list[Uploaded] | None = None

    def take(self) -> Sequence[dict[str, Any] | Uploaded]:
        """The next step's shard batches, as they were loaded, or preprocessed if they were loaded ahead."""
        ready, self._next = self._next, None
        self._step += 1
        return ready if ready is not None else next(self._batches)

    def load_next(self) -> None:
        """Wait until the next step's batches are loaded, and start copying them. Call this when a step is queued."""
        if self._ahead and self._next is None and (loaded := next(self._batches, None)) is not None:
            self._next = [self._upload(batch) for batch in loaded]

    def _upload(self, batch: dict[str, Any]) -> Uploaded:
        if self._stream is None:
            return Uploaded(self._preprocess(batch, self._step))
        with torch.cuda.stream(self._stream):
            return Uploaded(self._preprocess(batch, self._step), self._stream.record_event())
