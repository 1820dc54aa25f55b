"""Opens the data set on every rank of the gang, before there is a process group.

Rank 0 lists the files and, if the job's label file is not fresh, scans the labels and writes it. The others wait for
its word, which travels through torchrun's store: on a shared volume a new file may be invisible to other nodes for a
minute. The wait has no deadline while rank 0 makes progress. When it makes none for as long as a collective may take,
the watchdog ends the ranks that wait; rank 0's own one tells the cause.
"""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from distill_api.errors import Permanent, Retryable, TrainerError
from distill_api.reasons import Reason
from distill_trainer.data import DatasetInfo
from distill_trainer.data.config import DatasetConfig
from distill_trainer.data.labels.opening import LabelFolder
from distill_trainer.process.liveness.timeouts import Timeouts
from distill_trainer.process.liveness.watchdog import RENDEZVOUS, knows_nothing
from distill_trainer.process.rank.context import RankContext
from distill_trainer.process.rank.torchrun_env import TorchrunEnv

_POLL_SECONDS = 0.05
_PROGRESS_SECONDS = 1.0
_WORD, _PROGRESS = "labels/word", "labels/progress"


class SharedLabels:
    """The data set's labels, on this rank. Keep it until there is a process group: others may still ask its store."""

    def __init__(self, context: RankContext, limits: Timeouts) -> None:
        self._context = context
        self._folder = LabelFolder(context.files.labels)
        self._store = _store(context.env, limits)
        self._told_at = 0.0

    def open(self, config: DatasetConfig) -> DatasetInfo:
        """The data set with its labels, on all ranks the same. Raises Permanent or Retryable, on all ranks the same."""
        key = self._refresh(config) if self._context.env.is_main else self._wait()
        self._context.watchdog.beat("opening the labels")
        return self._folder.open(config, key)

    def _refresh(self, config: DatasetConfig) -> str:
        try:
            key = self._folder.refresh(config, self._progress, self._context.checkpointer.check_fence)
        except TrainerError as error:
            permanent = isinstance(error, Permanent)
            self._tell({"permanent": permanent, "reason": error.reason, "message": error.message})
            raise
        self._tell({"key": key})
        return key

    def _progress(self, done: int) -> None:
        if self._context.stop.requested:
            return  # there is nothing to lose yet: the watchdog ends this rank as stopped
        self._context.watchdog.beat("scanning the labels")
        now = time.monotonic()
        if self._store is not None and now - self._told_at >= _PROGRESS_SECONDS:
            self._told_at = now
            self._store.set(_PROGRESS, f"{now} {done}")

    def _tell(self, word: dict[str, Any]) -> None:
        if self._store is not None:
            self._store.set(_WORD, json.dumps(word))

    def _wait(self) -> str:
        store, watchdog = self._store, self._context.watchdog
        assert store is not None
        watchdog.beat(RENDEZVOUS)
        watchdog.waits_for = lambda: "rank 0 has not yet listed or scanned the labels"
        seen = b""
        while not store.check([_WORD]):
            progress = store.get(_PROGRESS) if store.check([_PROGRESS]) else b""
            if progress != seen and not self._context.stop.requested:
                seen = progress
                watchdog.beat(RENDEZVOUS)
            time.sleep(_POLL_SECONDS)
        watchdog.waits_for = knows_nothing
        word = json.loads(store.get(_WORD))
        if "key" in word:
            return str(word["key"])
        raise (Permanent if word["permanent"] else Retryable)(Reason(word["reason"]), word["message"])


def _store(env: TorchrunEnv, limits: Timeouts) -> dist.Store | None:
    """torchrun's store, or that of rank 0 where nobody has started one; None for a rank without others."""
    if env.world_size == 1:
        return None
    store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=limits.collective)))
    return dist.PrefixStore("distill", store)
