"""Which fields that define a run may still be corrected, and when.

While a job is suspended and none of its steps is committed, all of them. Once a step is committed, only those that
leave the checkpoint its meaning: how long training goes on, its learning rate, and how it is computed. The API server
decides by the status (CEL), and the trainer by what the checkpoint itself says: the status may have missed a commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from distill_api.spec.rules.across import PROCESSES
from distill_api.spec.rules.rule import Rule
from distill_api.spec.training import Training

if TYPE_CHECKING:
    from distill_api.spec.fields import DistillJobSpec

MISMATCH: Final = "CheckpointMismatch"
"""Reason.CHECKPOINT_MISMATCH, which this package cannot import: an attempt has met a checkpoint of another run."""
DEFINING: Final = (
    "student", "teacher", "dataset", "recipe", "distillation", "training", "accelerators", "device", "volumes",
)  # fmt: skip
"""The fields of spec that define a run."""
STARTED: Final = {
    "nodes": "the batch is cut for it; set elastic to change it",
    "persistentVolumeClaimRetentionPolicy": "claims were created with it",
    "checkOnly": "a check leaves nothing to go on from, and a training what a check would delete",
}
"""Fields that the first attempt fixes, committed or not, and why. With elastic, nodes may change."""
LATER: Final = ("epochs", "lr0", "lrf", "cos_lr", "amp", "compile", "patience", "val_period", "plots", "workers")
"""Fields of spec.training that may change while the job is suspended, also once steps are committed. epochs may only
grow."""

_STATUS = "oldSelf.status"
_ATTEMPTS = f"(has({_STATUS}.attempts) ? {_STATUS}.attempts : [])"
_NEVER_STARTED = f"(!has({_STATUS}) || !has({_STATUS}.attempt) || {_STATUS}.attempt == 0)"
_OVER = f"(has({_STATUS}) && has({_STATUS}.phase) && {_STATUS}.phase in ['Succeeded', 'Failed'])"
_AT_REST = f"({_NEVER_STARTED} || (has({_STATUS}.phase) && {_STATUS}.phase == 'Suspended'))"
_SUSPENDED = f"(oldSelf.spec.suspend && !{_OVER} && {_AT_REST})"
"""An attempt is stored before its pods are created, in a write that fails if the job was changed since it was read."""
_COMMITTED = (
    f"(has({_STATUS}) && ((has({_STATUS}.progress) && {_STATUS}.progress.committedStep > 0)"
    f" || {_ATTEMPTS}.exists(a, (has(a.committedStep) && a.committedStep > 0)"
    " || (has(a.resumedFromStep) && a.resumedFromStep > 0))))"
)
_MISMATCHED = (
    f"(has({_STATUS}) && {_ATTEMPTS}.exists(a, a.number == {_STATUS}.attempt && has(a.reason)"
    f" && a.reason == '{MISMATCH}'))"
)
"""The newest attempt asked for a correction, which must stay possible."""
_FREE = f"({_SUSPENDED} && (!{_COMMITTED} || {_MISMATCHED}))"


def _same(path: str) -> str:
    old, new = f"oldSelf.spec.{path}", f"self.spec.{path}"
    return f"((!has({old}) && !has({new})) || (has({old}) && has({new}) && {new} == {old}))"


def _rest_of_training() -> str:
    same = (_same(f"training.{field}") for field in Training.model_fields if field not in LATER)
    return " && ".join(("self.spec.training.epochs >= oldSelf.spec.training.epochs", *same))


def _same_template(volume: str) -> str:
    old, new = f"oldSelf.spec.volumes.{volume}", f"self.spec.volumes.{volume}"
    gone = (f"!has({old})", f"!has({new})") if volume == "models" else ()
    other = (f"!has({old}.claimTemplate)", f"!has({new}.claimTemplate)")
    return f"({' || '.join((*gone, *other, _same(f'volumes.{volume}.claimTemplate')))})"


_SAME_TEMPLATES = " && ".join(map(_same_template, ("checkpoints", "data", "models")))
_TO_CORRECT = "set suspend: true and wait for the phase Suspended to correct it"

JOB: Sequence[Rule] = (
    *(
        Rule(
            f"{_same(field)} || {_FREE}",
            f"{field} defines the run and cannot be changed once a step is committed; until then, {_TO_CORRECT}; else"
            " create a new DistillJob",
        )
        for field in DEFINING
        if field not in ("training", "accelerators")
    ),
    *(
        Rule(
            f"{_same(field)} || ({_SUSPENDED} && {_NEVER_STARTED})"
            + (" || (has(self.spec.elastic) && has(oldSelf.spec.elastic))" if field == "nodes" else ""),
            f"{field} cannot be changed once the job has started ({why}), and before only while suspend is true; else"
            " create a new DistillJob",
        )
        for field, why in STARTED.items()
    ),
    Rule(
        f"{_same('training')} || {_FREE} || ({_SUSPENDED} && {_rest_of_training()})",
        f"training defines the run and cannot be changed so: {_TO_CORRECT}, and once a step is committed change only"
        f" epochs (to more), {', '.join(LATER[1:])}; else create a new DistillJob",
    ),
    Rule(
        f"{_same('accelerators')} || {_FREE} || ({_SUSPENDED} && {_same('accelerators.perNode')}"
        f" && {_same('accelerators.processesPerNode')})",
        f"accelerators defines the run and cannot be changed so: {_TO_CORRECT}, and once a step is committed change"
        " only resource; else create a new DistillJob",
    ),
    Rule(
        f"{_same('volumes')} || {_NEVER_STARTED} || ({_SAME_TEMPLATES})",
        "volumes: a claim was already created from a claimTemplate; use another claim with claimName instead",
    ),
    Rule(
        "self.spec.nodes == oldSelf.spec.nodes || !has(self.status) || self.status.attempt == 0"
        " || (has(self.status.fullNodes) && self.spec.nodes <= self.status.fullNodes)",
        "nodes cannot be more than the first attempt started with (status.fullNodes), because the global batch is cut"
        " into parts for that many; create a new DistillJob",
    ),
    Rule(
        "!has(self.status) || !has(self.status.fullNodes)"
        " || self.spec.training.batch == oldSelf.spec.training.batch"
        " && self.spec.accelerators == oldSelf.spec.accelerators"
        f" || self.spec.training.batch % (self.status.fullNodes * {PROCESSES.replace('self.', 'self.spec.')}) == 0",
        "training.batch must also be divisible by the nodes that the first attempt started with (status.fullNodes)"
        " times processes per node; choose another batch, or create a new DistillJob",
    ),
)
"""Rules for changes of a job, of which CEL sees spec and status."""


@dataclass(frozen=True)
class Change:
    """A field that differs from what wrote the checkpoint; `before` and `now` are None where it is not set."""

    field: str
    before: Any
    now: Any

    @property
    def allowed(self) -> bool:
        """Whether a run may go on from the checkpoint with it."""
        name = self.field.removeprefix("training.")
        if name == self.field or name not in LATER:
            return False
        return name != "epochs" or int(self.now) >= int(self.before)

    def __str__(self) -> str:
        return f"{self.field} {_shown(self.before)}, now {_shown(self.now)}"


def definition(spec: DistillJobSpec) -> dict[str, Any]:
    """What a checkpoint of this job means: the fields without which, or with others, its tensors mean something else.

    Fields that have their default are left out, so that a version which has more of them finds the same.
    """
    wire = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
    found: dict[str, Any] = {name: wire[name] for name in ("dataset", "distillation", "training") if name in wire}
    models: dict[str, Any] = {name: {"model": wire[name]["model"]} for name in ("student", "teacher") if name in wire}
    return {**models, **found, "worldSize": spec.world_size}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The fields in which two definitions differ, with the defaults of training for those that are left out."""
    defaults = _flat({"training": Training().model_dump(mode="json")})
    old, new = defaults | _flat(before), defaults | _flat(now)
    pairs = (Change(field, old.get(field), new.get(field)) for field in sorted(old | new))
    return [change for change in pairs if change.before != change.now]


def _flat(part: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in part.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)
