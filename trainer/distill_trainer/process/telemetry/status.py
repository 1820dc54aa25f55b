"""A rank's status: the body of GET /status, with a copy in a file for the launcher."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from distill_api.pod.report import RankSeconds, TrainerStatus
from distill_api.spec.rules.corrections import Change
from distill_api.status import Progress, SpecChange, VersionChange
from distill_trainer.process.telemetry.time_accounting import TimeAccounting

_PERSIST_INTERVAL = 1.0


class RankStatus:
    """The current TrainerStatus of a rank. Thread-safe. Unknown fields raise ValueError."""

    def __init__(
        self,
        *,
        job: str,
        uid: str,
        attempt: int,
        rank: int,
        world_size: int,
        images_per_second: Callable[[], float | None],
        idle_seconds: Callable[[], float] = lambda: 0.0,
        checkpoint_stalls: Callable[[], float] = lambda: 0.0,
        copy: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`idle_seconds` returns the seconds since this rank last made progress, and `checkpoint_stalls` the seconds so
        far that checkpoints blocked training.

        `copy`: a file with a status at most about one second old, for the launcher to read if the rank is killed.
        """
        self._lock = threading.Lock()
        self._status = TrainerStatus(
            job=job, uid=uid, attempt=attempt, rank=rank, world_size=world_size, state="starting"
        )
        self._rate = images_per_second
        self._idle_seconds = idle_seconds
        self._accounting = TimeAccounting(checkpoint_stalls, clock)
        self._copy = copy
        self._clock = clock
        self._copied_at = -_PERSIST_INTERVAL
        self._first_step: tuple[float, int] | None = None

    def update(self, **fields: Any) -> None:
        """Set fields of TrainerStatus: state, resumed_from_step, steps_this_attempt …"""
        with self._lock:
            first_step = self._status.steps_this_attempt == 0 and fields.get("steps_this_attempt", 0) > 0
            stepped = fields.get("steps_this_attempt", 0) > self._status.steps_this_attempt
            self._set(fields)
            if "state" in fields:
                self._accounting.enter(self._status.state)
            if stepped:
                self._accounting.step()
            # After a kill the launcher must know that this attempt has made a step.
            self._persist(at_once=first_step)

    def progress(self, **fields: Any) -> None:
        """Set fields of Progress: step, steps, epoch, student_map …; the ETA is computed from them."""
        with self._lock:
            _check(fields, Progress)
            now = self._clock()
            merged = self._status.progress.model_dump() | fields
            if "step" in fields and self._first_step is None:
                self._first_step = (now, fields["step"])
            merged["images_per_second"] = fields.get("images_per_second", self._rate())
            eta = self._eta(now, merged["step"], merged["steps"])
            merged |= {"eta_seconds": eta, "eta": None if eta is None else short_duration(eta)}
            if merged["student_map"] is not None and merged["teacher_map"] is not None:
                merged["map_gap"] = merged["teacher_map"] - merged["student_map"]
            self._set({"progress": Progress.model_validate(merged)})
            self._persist()

    def resumed(self, step: int, committed_at: datetime | None) -> None:
        """The attempt starts from this committed step; 0 for a fresh start. `committed_at`: None if unknown."""
        self.update(resumed_from_step=step)
        self.progress(step=step, committed_step=step, committed_at=committed_at)

    def checkpoint_committed(self, step: int, at: datetime) -> None:
        """A checkpoint was committed."""
        self.progress(committed_step=step, committed_at=at)

    def checkpoint_fell_back(self) -> None:
        """A damaged checkpoint was skipped on resume."""
        self.update(checkpoint_fallbacks=self.read().checkpoint_fallbacks + 1)

    def versions_changed(self, changes: Mapping[str, tuple[str, str]]) -> None:
        """The run resumes with other versions. `changes`: name -> (version in the checkpoint, version now)."""
        version_changes = [
            VersionChange(name=name, checkpoint=before, attempt=now) for name, (before, now) in changes.items()
        ]
        self.update(version_changes=version_changes)

    def spec_changed(self, changes: Iterable[Change]) -> None:
        """The run resumes with another spec than wrote the checkpoint."""
        shown = [(change.field, *map(_short, (change.before, change.now))) for change in changes]
        self.update(spec_changes=[SpecChange(field=name, checkpoint=old, attempt=new) for name, old, new in shown])

    def read(self) -> TrainerStatus:
        """The current status."""
        with self._lock:
            measured = {"idle_seconds": self._idle_seconds(), "seconds": self._accounting.seconds()}
            return self._status.model_copy(update=measured)

    def seconds(self) -> RankSeconds:
        """Where this rank's time has gone."""
        with self._lock:
            return self._accounting.seconds()

    def position(self) -> tuple[int | None, int | None]:
        """The gang's execution, and the steps of the job that are done. Without the lock, which a signal handler that
        logs might never get.
        """
        status = self._status
        return status.execution, status.progress.step

    def to_json(self) -> bytes:
        """Body of GET /status."""
        return self.read().model_dump_json(by_alias=True, exclude_none=True).encode()

    def _eta(self, now: float, step: int, steps: int) -> int | None:
        if self._first_step is None or step <= self._first_step[1]:
            return None
        since, first = self._first_step
        return round((steps - step) * (now - since) / (step - first)) if steps >= step else None

    def _set(self, fields: dict[str, Any]) -> None:
        _check(fields, TrainerStatus)
        values = {name: getattr(self._status, name) for name in TrainerStatus.model_fields}
        self._status = TrainerStatus.model_validate(values | fields)

    def _persist(self, at_once: bool = False) -> None:
        now = self._clock()
        if self._copy is None or (now - self._copied_at < _PERSIST_INTERVAL and not at_once):
            return
        self._copied_at = now
        temporary = self._copy.with_name(self._copy.name + ".tmp")
        # Without the copy a message loses a detail; that must not end training.
        with contextlib.suppress(OSError):
            copied = self._status.model_copy(update={"seconds": self._accounting.seconds()})
            temporary.write_bytes(copied.model_dump_json(by_alias=True, exclude_none=True).encode())
            os.replace(temporary, self._copy)


def _short(value: object) -> str:
    return str(value)[:128]


def _check(fields: dict[str, Any], model: type[TrainerStatus] | type[Progress]) -> None:
    """Raise ValueError for unknown fields, which the pydantic models silently ignore."""
    if unknown := sorted(fields.keys() - model.model_fields.keys()):
        raise ValueError(f"{model.__name__} has no {', '.join(unknown)}")


def short_duration(seconds: int) -> str:
    """A duration for humans: 45s, 12m, 1h20m, 3d4h."""
    if seconds < 60:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h" if hours else f"{days}d"
