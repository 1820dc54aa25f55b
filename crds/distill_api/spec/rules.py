"""Rules across fields, each in two forms side by side: CEL for the API server, Python for `distill run`.

A message says what is wrong and what to change. A test checks that both forms agree on the same specifications.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from distill_api.spec.fields import Distillation, DistillJobSpec, Until, Volume

T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """One rule: `cel` for the API server, `holds` for Python; None for updates, which only the API server sees."""

    cel: str
    message: str
    holds: Callable[[Any], bool] | None = None


def check(model: T, rules: Sequence[Rule]) -> T:
    """Return `model`. Raises ValueError with the messages of all broken rules."""
    broken = [rule.message for rule in rules if rule.holds is not None and not rule.holds(model)]
    if broken:
        raise ValueError("; ".join(broken))
    return model


def _one_claim(volume: Volume) -> bool:
    return (volume.claim_name is None) != (volume.claim_template is None)


def _one_end(until: Until) -> bool:
    return [until.epochs, until.fraction, until.close_mosaic].count(None) == 2


def _stop_has_an_end(distillation: Distillation) -> bool:
    return distillation.schedule != "stop" or distillation.until is not None


def _constant_has_no_end(distillation: Distillation) -> bool:
    return distillation.schedule != "constant" or distillation.until is None


def _ends_within_the_run(spec: DistillJobSpec) -> bool:
    until = spec.distillation.until
    return until is None or until.epochs is None or until.epochs <= spec.training.epochs


def _mosaic_is_closed(spec: DistillJobSpec) -> bool:
    until = spec.distillation.until
    return until is None or until.close_mosaic is None or 0 < spec.training.close_mosaic < spec.training.epochs


def _batch_divides(spec: DistillJobSpec) -> bool:
    return spec.training.batch % spec.world_size == 0


def _least_nodes(spec: DistillJobSpec) -> bool:
    return spec.elastic is None or spec.elastic.min_nodes <= spec.nodes


def _processes(spec: DistillJobSpec) -> bool:
    asked = spec.accelerators.processes_per_node
    return asked is None or not spec.uses_cuda or asked == spec.accelerators.per_node


def _cuda_needs_accelerators(spec: DistillJobSpec) -> bool:
    return spec.device != "cuda" or spec.accelerators.per_node > 0


def _shared_checkpoints(spec: DistillJobSpec) -> bool:
    template = spec.volumes.checkpoints.claim_template
    return spec.nodes == 1 or template is None or "ReadWriteMany" in template.access_modes


def _teacher_is_trained(spec: DistillJobSpec) -> bool:
    return spec.teacher is None or spec.teacher.model.endswith(".pt")


def _student_kind(spec: DistillJobSpec) -> bool:
    return spec.student.model.endswith((".pt", ".yaml", ".yml"))


def _models_volume(spec: DistillJobSpec) -> bool:
    needs = spec.teacher is not None or spec.student.model.endswith(".pt")
    return spec.volumes.models is not None or not needs


def _paths_stay_inside(spec: DistillJobSpec) -> bool:
    paths = [spec.student.model, spec.dataset.config, *([spec.teacher.model] if spec.teacher else [])]
    paths += [spec.report.baseline] if spec.report.baseline else []
    return not any(path.startswith("/") or ".." in path.split("/") for path in paths)


VOLUME: Sequence[Rule] = (
    Rule(
        "has(self.claimName) != has(self.claimTemplate)",
        "give either claimName (an existing claim) or claimTemplate (a claim to create), and not both",
        _one_claim,
    ),
)

UNTIL: Sequence[Rule] = (
    Rule(
        "[has(self.epochs), has(self.fraction), has(self.closeMosaic)].filter(given, given).size() == 1",
        "give exactly one of epochs, fraction and closeMosaic in distillation.until",
        _one_end,
    ),
)

DISTILLATION: Sequence[Rule] = (
    Rule(
        "self.schedule != 'stop' || has(self.until)",
        "distillation.schedule is stop but nothing says when; give epochs, fraction or closeMosaic in until",
        _stop_has_an_end,
    ),
    Rule(
        "self.schedule != 'constant' || !has(self.until)",
        "distillation.until has no effect on a constant weight; set distillation.schedule to stop or cosine,"
        " or leave until out",
        _constant_has_no_end,
    ),
)

_PROCESSES = (
    "(has(self.accelerators.processesPerNode) ? self.accelerators.processesPerNode :"
    " (self.accelerators.perNode > 0 ? self.accelerators.perNode : 1))"
)
_CUDA = "(self.device == 'cuda' || (self.device == 'auto' && self.accelerators.perNode > 0))"

SPEC: Sequence[Rule] = (
    Rule(
        f"self.training.batch % (self.nodes * {_PROCESSES}) == 0",
        "training.batch is the global batch and must be divisible by nodes times processes per node",
        _batch_divides,
    ),
    Rule(
        "!has(self.elastic) || self.elastic.minNodes <= self.nodes",
        "elastic.minNodes is larger than nodes; lower it, or raise nodes",
        _least_nodes,
    ),
    Rule(
        f"!has(self.accelerators.processesPerNode) || !{_CUDA}"
        " || self.accelerators.processesPerNode == self.accelerators.perNode",
        "each CUDA process needs one accelerator: leave accelerators.processesPerNode out, or set device: cpu",
        _processes,
    ),
    Rule(
        "self.device != 'cuda' || self.accelerators.perNode > 0",
        "device is cuda but accelerators.perNode is 0; request at least one accelerator, or set device: cpu",
        _cuda_needs_accelerators,
    ),
    Rule(
        "self.nodes == 1 || !has(self.volumes.checkpoints.claimTemplate)"
        " || 'ReadWriteMany' in self.volumes.checkpoints.claimTemplate.accessModes",
        "several nodes write to one checkpoints volume: add ReadWriteMany to its accessModes, or set nodes: 1",
        _shared_checkpoints,
    ),
    Rule(
        "!has(self.distillation.until) || !has(self.distillation.until.epochs)"
        " || self.distillation.until.epochs <= self.training.epochs",
        "distillation.until.epochs is larger than training.epochs; lower it, or leave schedule and until out",
        _ends_within_the_run,
    ),
    Rule(
        "!has(self.distillation.until) || !has(self.distillation.until.closeMosaic)"
        " || (self.training.close_mosaic > 0 && self.training.close_mosaic < self.training.epochs)",
        "distillation.until.closeMosaic needs mosaic to be closed during the run: set training.close_mosaic between 1"
        " and training.epochs - 1",
        _mosaic_is_closed,
    ),
    Rule(
        "!has(self.teacher) || self.teacher.model.endsWith('.pt')",
        "teacher.model must be a trained .pt file; an architecture alone has nothing to teach",
        _teacher_is_trained,
    ),
    Rule(
        "self.student.model.endsWith('.pt') || self.student.model.endsWith('.yaml')"
        " || self.student.model.endsWith('.yml')",
        "student.model must be a .pt file or a .yaml architecture",
        _student_kind,
    ),
    Rule(
        "has(self.volumes.models) || !(has(self.teacher) || self.student.model.endsWith('.pt'))",
        "a .pt file is read from the models volume: set volumes.models",
        _models_volume,
    ),
    Rule(
        "[self.student.model, self.dataset.config, has(self.teacher) ? self.teacher.model : 'none',"
        " has(self.report.baseline) ? self.report.baseline : 'none']"
        ".all(p, !p.startsWith('/') && !p.split('/').exists(part, part == '..'))",
        "model and data set paths are relative to their volumes and must stay inside them (no leading / and no ..)",
        _paths_stay_inside,
    ),
    *(
        Rule(
            f"(!has(oldSelf.{field}) && !has(self.{field}))"
            f" || (has(oldSelf.{field}) && has(self.{field}) && self.{field} == oldSelf.{field})",
            f"{field} defines the run and cannot be changed; create a new DistillJob",
        )
        for field in (
            "student",
            "teacher",
            "dataset",
            "distillation",
            "training",
            "nodes",
            "accelerators",
            "device",
            "volumes",
        )
    ),
)

OWNED_POD_FIELDS = (
    "restartPolicy",
    "hostname",
    "subdomain",
    "terminationGracePeriodSeconds",
    "nodeName",
    "serviceAccountName",
    "automountServiceAccountToken",
    "priorityClassName",
    "nodeSelector",
    "tolerations",
)
"""Fields of template.spec that the operator sets from other fields, and that users must not set."""
