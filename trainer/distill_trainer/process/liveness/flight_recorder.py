"""What a rank waits for on its device: torch's flight recorder knows which collectives have not completed.

A host that waits for NCCL sits in a CUDA call that nothing interrupts, and no error is raised there; a peer that is
gone looks the same as a long kernel.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from distill_api.base import Model

log = logging.getLogger(__name__)

VARIABLES: Final[Mapping[str, str]] = {"TORCH_FR_BUFFER_SIZE": "2000"}
"""Environment variables that turn the recorder on."""
_DEFAULT_GROUP = "0"

T = TypeVar("T")


class Position(Model):
    """How far a rank has come in the gang's sequence of collectives, which is the same on all ranks."""

    number: int
    """Of the oldest collective that has not completed; if there is none, of the newest that has."""
    name: str
    """Such as all_reduce."""
    active: bool
    """Whether it has not completed."""


def waits_for() -> str | None:
    """The oldest collective of this rank that has not completed, such as `all_reduce 41, state started`; None if there
    is none, or if it cannot be known.
    """
    return _told(oldest_active)


def position() -> Position | None:
    """This rank's position; None if it has begun no collective of NCCL, or if it cannot be known."""
    return _told(position_of)


def oldest_active(trace: Mapping[str, Any]) -> str | None:
    """What a dump of the flight recorder says of the oldest collective that has not completed."""
    entry = _oldest_active(trace)
    if entry is None:
        return None
    return f"{_name(entry)} {entry.get('collective_seq_id', '?')}, state {entry.get('state', 'unknown')}"


def position_of(trace: Mapping[str, Any]) -> Position | None:
    """The position that a dump of the flight recorder tells."""
    entry = _oldest_active(trace)
    if entry is not None and "collective_seq_id" in entry:
        return Position(number=int(entry["collective_seq_id"]), name=_name(entry), active=True)
    status = trace.get("pg_status", {}).get(_DEFAULT_GROUP, {})
    completed = int(status.get("last_completed_collective", -1))
    if completed < 1:
        return None
    names = {entry.get("collective_seq_id"): _name(entry) for entry in trace.get("entries", ())}
    return Position(number=completed, name=names.get(completed, "collective"), active=False)


def describe(positions: Mapping[int, Position]) -> str:
    """Ranks and their collectives, those that are behind first, such as `rank 3 has completed all_reduce 40 and is in
    none, ranks 0, 1, 2 are in all_reduce 41`.
    """
    alike: dict[Position, list[int]] = {}
    for rank, position in sorted(positions.items()):
        alike.setdefault(position, []).append(rank)
    told = []
    for position, ranks in sorted(alike.items(), key=lambda item: (item[0].number, item[0].active, item[1])):
        one = len(ranks) == 1
        who = f"rank{'' if one else 's'} {', '.join(map(str, ranks))}"
        where = f"{position.name} {position.number}"
        if position.active:
            told.append(f"{who} {'is' if one else 'are'} in {where}")
        else:
            told.append(f"{who} {'has' if one else 'have'} completed {where} and {'is' if one else 'are'} in none")
    return ", ".join(told)


def _oldest_active(trace: Mapping[str, Any]) -> Mapping[str, Any] | None:
    entries = trace.get("entries", ())
    active = [entry for entry in entries if entry.get("state") != "completed" and not entry.get("retired")]
    return min(active, key=lambda entry: int(entry.get("record_id", 0)), default=None)


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("profiling_name", "collective")).rpartition(":")[2]


def _told(by: Callable[[Mapping[str, Any]], T | None]) -> T | None:
    try:
        return by(json.loads(_dump()))
    except Exception as error:  # noqa: BLE001  a rank that is stuck must end whatever the recorder says
        log.warning("torch's flight recorder cannot be read: %s", error)
        return None


def _dump() -> str | bytes:
    from torch._C import _distributed_c10d

    dumped: str | bytes = _distributed_c10d._dump_nccl_trace_json(  # type: ignore[attr-defined]
        includeCollectives=True, onlyActive=False
    )
    return dumped
