"""What a rank waits for on its device: torch's flight recorder knows which collectives have not completed.

A host that waits for NCCL sits in a CUDA call that nothing interrupts, and no error is raised there; a peer that is
gone looks the same as a long kernel.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

log = logging.getLogger(__name__)

VARIABLES: Final[Mapping[str, str]] = {"TORCH_FR_BUFFER_SIZE": "2000"}
"""Environment variables that turn the recorder on."""


def waits_for() -> str | None:
    """The oldest collective of this rank that has not completed, such as `all_reduce 41, state started`; None if there
    is none, or if it cannot be known.
    """
    try:
        return oldest_active(json.loads(_dump()))
    except Exception as error:  # noqa: BLE001  a rank that is stuck must end whatever the recorder says
        log.warning("torch's flight recorder cannot be read: %s", error)
        return None


def oldest_active(trace: Mapping[str, Any]) -> str | None:
    """What a dump of the flight recorder says of the oldest collective that has not completed."""
    active = [entry for entry in trace.get("entries", ()) if entry.get("state") != "completed"]
    if not active:
        return None
    entry = min(active, key=lambda entry: int(entry.get("record_id", 0)))
    name = str(entry.get("profiling_name", "collective")).rpartition(":")[2]
    return f"{name} {entry.get('collective_seq_id', '?')}, state {entry.get('state', 'unknown')}"


def _dump() -> str | bytes:
    from torch._C import _distributed_c10d

    dumped: str | bytes = _distributed_c10d._dump_nccl_trace_json(  # type: ignore[attr-defined]
        includeCollectives=True, onlyActive=True
    )
    return dumped
