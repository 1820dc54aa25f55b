"""Rules across fields, each in two forms side by side: CEL for the API server, Python for `distill run`.

A message says what is wrong and what to change. A test checks that both forms agree on the same specifications.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill_api.constants import TRAINER_CONTAINER
from distill_api.reading.quantity import amount
from distill_api.spec.rules.rule import Rule

if TYPE_CHECKING:
    from distill_api.spec.fields import DistillJobSpec, Resources, Scheduling


def _empty_directories_are_filled(spec: DistillJobSpec) -> bool:
    read = (volume for volume in (spec.volumes.data, spec.volumes.models) if volume is not None)
    pod = (spec.template or {}).get("spec")
    fillers = pod.get("initContainers") if isinstance(pod, Mapping) else None
    return bool(fillers) or all(volume.empty_dir is None for volume in read)


def _ends_within_the_run(spec: DistillJobSpec) -> bool:
    until = spec.distillation.until
    return until is None or until.epochs is None or until.epochs <= spec.training.epochs


def _mosaic_is_closed(spec: DistillJobSpec) -> bool:
    until = spec.distillation.until
    return until is None or until.close_mosaic is None or 0 < spec.training.close_mosaic < spec.training.epochs


def _batch_divides(spec: DistillJobSpec) -> bool:
    return spec.training.batch % spec.world_size == 0


def _batches(spec: DistillJobSpec) -> str:
    batch, ranks = spec.training.batch, spec.world_size
    usable = [str(size) for size in (batch // ranks * ranks, (batch // ranks + 1) * ranks) if size]
    return f"{batch} is not, by {spec.nodes} × {spec.processes_per_node} = {ranks}; use {' or '.join(usable)}"


def _least_nodes(spec: DistillJobSpec) -> bool:
    return spec.elastic is None or spec.elastic.min_nodes <= spec.nodes


def _processes(spec: DistillJobSpec) -> bool:
    asked = spec.accelerators.processes_per_node
    return asked is None or not spec.uses_cuda or asked == spec.accelerators.per_node


def _cuda_needs_accelerators(spec: DistillJobSpec) -> bool:
    return spec.device != "cuda" or spec.accelerators.per_node > 0


def _checks_in_one_process(spec: DistillJobSpec) -> bool:
    return not spec.check_only or (spec.accelerators.per_node == 0 and spec.world_size == 1)


def _requests_within_limits(resources: Resources) -> bool:
    limits = resources.limits
    return all(
        name not in limits or amount(asked) <= amount(limits[name]) for name, asked in resources.requests.items()
    )


def _accelerators_apart(spec: DistillJobSpec) -> bool:
    given = spec.resources
    return given is None or spec.accelerators.resource not in given.requests.keys() | given.limits.keys()


def _more_than_one_node(scheduling: Scheduling) -> bool:
    return "kubernetes.io/hostname" not in (scheduling.required_topology, scheduling.preferred_topology)


def _resources_in_one_place(spec: DistillJobSpec) -> bool:
    return spec.resources is None or not any(
        given.get(kind) is not None for given in trainers_resources(spec.template) for kind in ("requests", "limits")
    )


def trainers_resources(template: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The resources of the training container in a pod template; empty if it gives none."""
    pod = (template or {}).get("spec")
    containers = pod.get("containers") if isinstance(pod, Mapping) else None
    trainers = [c for c in containers or () if isinstance(c, Mapping) and c.get("name") == TRAINER_CONTAINER]
    return [given for given in (trainer.get("resources") for trainer in trainers) if isinstance(given, Mapping)]


def _shared_checkpoints(spec: DistillJobSpec) -> bool:
    template = spec.volumes.checkpoints.claim_template
    return spec.nodes == 1 or template is None or "ReadWriteMany" in template.access_modes


def _teacher_is_trained(spec: DistillJobSpec) -> bool:
    return spec.teacher is None or spec.teacher.model.endswith(".pt")


def _someone_teaches_unlabelled_images(spec: DistillJobSpec) -> bool:
    return spec.dataset.unlabelled is None or (spec.teacher is not None and spec.distillation.weight > 0)


def _has_whom_to_inherit_from(spec: DistillJobSpec) -> bool:
    return spec.student.init != "inherit" or spec.teacher is not None


def _inherits_within_a_family(spec: DistillJobSpec) -> bool:
    return spec.student.init != "inherit" or not spec.distillation.allow_cross_family


def _recipe_has_a_teacher(spec: DistillJobSpec) -> bool:
    return spec.recipe != "auto" or spec.teacher is not None


def _recipe_alone(spec: DistillJobSpec) -> bool:
    fraction = spec.teacher.batch_fraction if spec.teacher is not None else 1.0
    student = spec.student.init == "default" and spec.student.inherit == type(spec.student.inherit)()
    distillation = spec.distillation == type(spec.distillation)()
    return spec.recipe != "auto" or (student and fraction == 1.0 and distillation)


def _student_kind(spec: DistillJobSpec) -> bool:
    return spec.student.model.endswith((".pt", ".yaml", ".yml"))


def _models_volume(spec: DistillJobSpec) -> bool:
    needs = spec.teacher is not None or spec.student.model.endswith(".pt")
    return spec.volumes.models is not None or not needs


def _paths_stay_inside(spec: DistillJobSpec) -> bool:
    paths = [spec.student.model, spec.dataset.config, *([spec.teacher.model] if spec.teacher else [])]
    paths += [spec.report.baseline] if spec.report.baseline else []
    return not any(path.startswith("/") or ".." in path.split("/") for path in paths)


RESOURCES: Sequence[Rule] = (
    Rule(
        "self.requests.all(name, !(name in self.limits) || quantity(string(self.requests[name]))"
        ".compareTo(quantity(string(self.limits[name]))) <= 0)",
        "a request in resources is larger than its limit; lower the request, or raise the limit",
        _requests_within_limits,
    ),
)

SCHEDULING: Sequence[Rule] = (
    Rule(
        "(!has(self.requiredTopology) || self.requiredTopology != 'kubernetes.io/hostname')"
        " && (!has(self.preferredTopology) || self.preferredTopology != 'kubernetes.io/hostname')",
        "each pod has a node of its own, so kubernetes.io/hostname is no topology for all of them; name a larger one,"
        " such as topology.kubernetes.io/zone",
        _more_than_one_node,
    ),
)

PROCESSES = (
    "(has(self.accelerators.processesPerNode) ? self.accelerators.processesPerNode :"
    " (self.accelerators.perNode > 0 ? self.accelerators.perNode : 1))"
)
_CUDA = "(self.device == 'cuda' || (self.device == 'auto' && self.accelerators.perNode > 0))"

SPEC: Sequence[Rule] = (
    Rule(
        f"self.training.batch % (self.nodes * {PROCESSES}) == 0",
        "training.batch is the global batch and must be divisible by nodes times processes per node",
        _batch_divides,
        of_field=True,
        numbers=_batches,
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
        f"!self.checkOnly || (self.accelerators.perNode == 0 && self.nodes * {PROCESSES} == 1)",
        "checkOnly is one process without accelerators: set nodes: 1 and accelerators.perNode: 0, and leave"
        " accelerators.processesPerNode out; distill validate --cluster does that by itself",
        _checks_in_one_process,
    ),
    Rule(
        "!has(self.resources) || !(self.accelerators.resource in self.resources.requests"
        " || self.accelerators.resource in self.resources.limits)",
        "accelerators are no part of resources; remove them there and set spec.accelerators (resource and perNode)",
        _accelerators_apart,
    ),
    Rule(
        "!has(self.resources) || !has(self.template) || !has(self.template.spec) || !has(self.template.spec.containers)"
        f" || self.template.spec.containers.all(c, c.name != '{TRAINER_CONTAINER}' || !has(c.resources)"
        " || (!has(c.resources.requests) && !has(c.resources.limits)))",
        "requests and limits of the training container are in resources and in template; keep one of them",
        _resources_in_one_place,
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
        "!has(self.dataset.unlabelled) || has(self.teacher) && self.distillation.weight > 0.0",
        "dataset.unlabelled has images that only a teacher can teach; set teacher and a weight of"
        " distillation, or leave it out",
        _someone_teaches_unlabelled_images,
    ),
    Rule(
        "self.student.init != 'inherit' || has(self.teacher)",
        "student.init is inherit but there is no teacher; set teacher, or leave student.init out",
        _has_whom_to_inherit_from,
    ),
    Rule(
        "self.student.init != 'inherit' || !self.distillation.allowCrossFamily",
        "a student cannot inherit from a model of another family: leave out student.init, or"
        " distillation.allowCrossFamily and choose a teacher of the student's family",
        _inherits_within_a_family,
    ),
    Rule(
        "self.recipe != 'auto' || has(self.teacher)",
        "recipe is auto but there is no teacher to learn from; set teacher, or leave recipe out",
        _recipe_has_a_teacher,
    ),
    Rule(
        "self.recipe != 'auto' || self.student.init == 'default' && self.student.inherit.channels == 'activations'"
        " && self.student.inherit.images == 64 && (!has(self.teacher) || self.teacher.batchFraction == 1.0)"
        " && self.distillation.weight == 6.0 && self.distillation.loss == 'sl2'"
        " && self.distillation.terms.size() == 0 && self.distillation.projector == 'mlp'"
        " && self.distillation.schedule == 'constant' && !has(self.distillation.share)"
        " && !has(self.distillation.until) && !self.distillation.allowCrossFamily",
        "recipe: auto chooses student.init and student.inherit, teacher.batchFraction and distillation; leave them out,"
        " or set recipe: ultralytics to choose them yourself",
        _recipe_alone,
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
        "!has(self.volumes.data.emptyDir) && (!has(self.volumes.models) || !has(self.volumes.models.emptyDir))"
        " || has(self.template) && has(self.template.spec) && has(self.template.spec.initContainers)"
        " && self.template.spec.initContainers.size() > 0",
        "an emptyDir has no files until an init container fills it: add one to template.spec.initContainers, or use"
        " another source",
        _empty_directories_are_filled,
    ),
    Rule(
        "[self.student.model, self.dataset.config, has(self.teacher) ? self.teacher.model : 'none',"
        " has(self.report.baseline) ? self.report.baseline : 'none']"
        ".all(p, !p.startsWith('/') && !p.split('/').exists(part, part == '..'))",
        "model and data set paths are relative to their volumes and must stay inside them (no leading / and no ..)",
        _paths_stay_inside,
    ),
)
