"""What `distill apply` is about to do, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from distill_api.spec.recipe import chosen
from distill_api.spec.volumes import SourceVolume, Volume
from distill_cli.views import text
from distill_cli.views.changes import Change, changes
from distill_cli.views.row import hardware
from distill_client import Job


@dataclass(frozen=True)
class ApplyPlan:
    """The plan for one job."""

    name: str
    new: bool
    notes: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    @property
    def changes_something(self) -> bool:
        """Whether applying does anything."""
        return self.new or bool(self.changes)

    def lines(self) -> list[str]:
        """For the terminal."""
        if self.new:
            return [f"{self.name} is new", *(f"  {note}" for note in self.notes)]
        if not self.changes:
            return [f"{self.name} is unchanged"]
        width = max(len(change.field) for change in self.changes)
        return [f"{self.name} changes:", *(_line(change, width) for change in self.changes)]


def creation(job: Job, missing: Collection[str] = ()) -> ApplyPlan:
    """The plan for a job that does not exist yet; `job` is as the API server would store it. `missing`: names of its
    claims that do not exist.
    """
    spec = job.spec
    ranks = f"{text.plural(spec.nodes, 'pod')} {hardware(job)}, {text.plural(spec.world_size, 'rank')}"
    notes = [f"each attempt: {ranks}, {spec.training.batch // spec.world_size} of {spec.training.batch} images a rank"]
    for name, volume in spec.volumes.by_name().items():
        if volume.claim_template is not None:
            how = spec.persistent_volume_claim_retention_policy.when_deleted
            fate = "deleted with the job" if how == "Delete" else "kept"
            size = volume.claim_template.resources.requests["storage"]
            notes.append(f"{name}: the operator makes claim {job.name}-{name} of {size}, {fate}")
        else:
            absent = f", which does not exist in namespace {job.namespace}" if volume.claim_name in missing else ""
            notes.append(f"{name}: {_source(volume)}{f', {volume.sub_path}' if volume.sub_path else ''}{absent}")
    if (recipe := chosen(spec)) is not None:
        notes.append(f"recipe: auto stands for {_words(recipe)}")
    if spec.suspend:
        notes.append("it is created suspended: distill resume starts it")
    return ApplyPlan(job.name, new=True, notes=notes)


def _source(volume: Volume) -> str:
    if isinstance(volume, SourceVolume) and volume.image is not None:
        return f"image {volume.image.reference}"
    return f"claim {volume.claim_name}" if volume.is_claim else "what template's init containers fetch, in each pod"


def update(stored: Job, wanted: Mapping[str, Any]) -> ApplyPlan:
    """The plan for a stored job that gets this spec."""
    return ApplyPlan(stored.name, new=False, changes=changes(stored, wanted))


def _line(change: Change, width: int) -> str:
    values = f"{_shown(change.before)} → {_shown(change.now)}"
    return f"  {change.field:<{width}}  {values}  ({change.effect})"


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)


def _words(fields: Mapping[str, Any]) -> str:
    import json

    return json.dumps(fields)
