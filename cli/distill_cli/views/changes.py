"""What applying a file changes, and when each change takes effect: the rules of distill_api.spec.rules.corrections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from distill_api.constants import Phase
from distill_api.spec.rules import corrections
from distill_api.spec.rules.corrections import DEFINING, STARTED
from distill_client import Job


class Effect(StrEnum):
    """When a change takes effect, or why it does not."""

    NOW = "at once"
    NEXT_ATTEMPT = "from the next attempt"
    RESUME = "when the job resumes"
    SUSPEND_FIRST = "refused: suspend the job first"
    COMMITTED = "refused: steps are committed; needs a new job"
    STARTED = "refused: the job has started; needs a new job"
    OVER = "no effect: the job has ended"
    ENDED = "refused: the job has ended; needs a new job"


@dataclass(frozen=True)
class Change:
    """A field of spec that differs."""

    field: str
    before: Any
    now: Any
    effect: Effect

    @property
    def refused(self) -> bool:
        """Whether the API server refuses it."""
        return self.effect.startswith("refused")


_AT_ONCE = (
    "suspend",
    "nodes",
    "activeDeadlineSeconds",
    "ttlSecondsAfterFinished",
    "cleanPodPolicy",
    "recovery",
    "elastic",
)


def changes(stored: Job, wanted: Mapping[str, Any]) -> list[Change]:
    """The fields in which the spec `wanted` differs from the stored one; both have their defaults."""
    old, new = flat(stored.raw["spec"]), flat(wanted)
    differing = sorted(field for field in old | new if old.get(field) != new.get(field))
    elastic = bool(stored.raw["spec"].get("elastic")) and bool(wanted.get("elastic"))
    return [
        Change(field, old.get(field), new.get(field), effect(field, old.get(field), new.get(field), stored, elastic))
        for field in differing
    ]


def effect(field: str, before: Any, now: Any, stored: Job, elastic: bool) -> Effect:
    """What becomes of the change of one field. `elastic`: before and after the change."""
    status, top = stored.status, field.partition(".")[0]
    free = top not in DEFINING and (top not in STARTED or (top == "nodes" and elastic))
    if status.over:
        return Effect.OVER if free else Effect.ENDED
    if free:
        return Effect.NOW if top in _AT_ONCE else Effect.NEXT_ATTEMPT
    never = status.attempt == 0
    suspended = stored.spec.suspend and (never or status.phase == Phase.SUSPENDED)
    fixed = top in STARTED or (top == "volumes" and ".claimTemplate" in field)
    if fixed and not never:
        return Effect.STARTED
    if committed(stored) and not _may_follow(field, before, now):
        return Effect.COMMITTED
    return Effect.RESUME if suspended else Effect.SUSPEND_FIRST


def committed(job: Job) -> bool:
    """Whether a step is committed, and no attempt has asked for a correction since."""
    attempts = job.status.attempts
    return job.committed_step > 0 and not (attempts and attempts[-1].reason == corrections.MISMATCH)


def _may_follow(field: str, before: Any, now: Any) -> bool:
    """Whether a field may change after a commit."""
    return field == "accelerators.resource" or corrections.Change(field, before, now).allowed


def overlay(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The stored spec with the fields that a file gives; what the file does not say stays."""
    inner = {
        name: overlay(stored[name], value)
        if isinstance(value, Mapping) and isinstance(stored.get(name), Mapping)
        else value
        for name, value in given.items()
    }
    return {**stored, **inner}


def flat(part: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields by their path. An empty mapping is none."""
    found: dict[str, Any] = {}
    for name, value in part.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found
