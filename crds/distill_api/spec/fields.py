"""spec: what a user asks for. Docstrings of fields are what `kubectl explain` prints."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from distill_api.base import Model
from distill_api.spec import rules
from distill_api.spec.training import Training

RelativePath = Annotated[str, Field(min_length=1, max_length=512)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Seconds = Annotated[int, Field(ge=1)]


class Student(Model):
    """The model to train."""

    model: RelativePath
    """A .pt file on the models volume, or the name of an Ultralytics architecture such as yolo26n.yaml."""
    trust_pickle: bool = False
    """Load a .pt file that holds other classes than Ultralytics' and torch's. Such a file can run any code in the
    training pods; without this it is refused."""


class Teacher(Model):
    """The frozen model to learn from."""

    model: RelativePath
    """A trained .pt file on the models volume, for example digits-teacher/weights/best.pt."""
    sha256: Sha256 | None = None
    """SHA-256 of the file, 64 lower case hex digits. When it is given and differs, the job is refused before anything
    of the file is loaded."""
    trust_pickle: bool = False
    """Load a file that holds other classes than Ultralytics' and torch's. Such a file can run any code in the
    training pods; without this it is refused. Give sha256 as well, so that no other file is trusted."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format that the teacher computes in. auto: bf16 or fp16 on CUDA, bf16 on CPUs with AMX, else fp32."""


class Dataset(Model):
    """The data set, in Ultralytics' format."""

    config: RelativePath
    """The data set's YAML file on the data volume."""


class Until(Model):
    """When distillation ends: one of the three. Training goes on without the teacher."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """After this many epochs."""
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """After this share of all training steps."""
    close_mosaic: Literal[True] | None = None
    """When mosaic is turned off, training.close_mosaic epochs before the end."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        return rules.check(self, rules.UNTIL)


class Distillation(Model):
    """How the student learns from the teacher."""

    weight: Annotated[float, Field(ge=0, le=1000)] = 6.0
    """Weight of the distillation loss in the total loss (Ultralytics' dis)."""
    loss: Literal["sl2", "cwd", "pkd", "logit"] = "sl2"
    """sl2: squared distance of projected student and teacher features, weighted by the teacher's class scores.
    cwd: divergence of where each channel responds. pkd: correlation of each channel. logit: cross-entropy of
    the class scores, without a projector."""
    schedule: Literal["constant", "cosine", "stop"] = "constant"
    """How the weight changes. constant: not at all. cosine: to zero, at `until` or at the end of training. stop:
    not at all until `until`, then zero. Once it is zero for good, no teacher runs and a step is a plain step."""
    until: Until | None = None
    """When the weight reaches zero; stop needs it, cosine may have it."""
    allow_cross_family: bool = False
    """Allow teacher and student of different YOLO families. Experimental."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        return rules.check(self, rules.DISTILLATION)


class Accelerators(Model):
    """What each node's pod asks for."""

    resource: Annotated[str, Field(min_length=1, max_length=253)] = "nvidia.com/gpu"
    """Extended resource of the accelerator."""
    per_node: Annotated[int, Field(ge=0, le=64)] = 1
    """Accelerators, and so training processes, per node. 0 trains on CPUs with gloo."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Training processes per node. Default: perNode, or 1 when perNode is 0. More than perNode only on CPUs."""


class Checkpoint(Model):
    """When progress is committed to the checkpoints volume."""

    interval_seconds: Seconds | Literal["auto"] = 60
    """Commit a checkpoint about this often, and at the end of every epoch. auto: as often as pays, from what a commit
    costs and how often the job has been disrupted, both as measured; between 5 and 600 seconds."""
    keep: Annotated[int, Field(ge=1, le=100)] = 3
    """Newest checkpoints to keep; the previous one is the fall-back for a damaged one."""


class Recovery(Model):
    """What happens when an attempt ends before the training is done."""

    max_failures: Annotated[int, Field(ge=0)] = 3
    """Failures (crashes, out of memory, stalls) that the job bears: more than this many make it Failed."""
    max_preemptions: Annotated[int, Field(ge=0)] | None = None
    """Disruptions (preemption, eviction, node loss, deleted pods) that the job bears: more than this many make it
    Failed. Default: no limit."""
    stall_timeout_seconds: Seconds = 600
    """An attempt that makes no progress, neither steps nor a validation, for this long is ended with cause Stalled."""
    scheduling_timeout_seconds: Seconds = 900
    """An attempt whose pods cannot all be scheduled for this long is taken back and tried again."""
    grace_period_seconds: Annotated[int, Field(ge=10, le=3600)] = 60
    """Time a pod has from SIGTERM to commit a checkpoint."""
    node_lost_timeout_seconds: Seconds = 60
    """A pod whose deletion its node has not confirmed for this long after the pod's grace period is given up with
    its node: the operator removes the pod's object and starts the next attempt. What may still run there can commit
    nothing any more. The wait spares a node whose kubelet only restarts."""
    max_restarts_without_progress: Annotated[int, Field(ge=1)] = 5
    """Restarts in a row without a newly committed step that the job bears: more than this many make it Failed,
    whatever the budgets."""


class Elastic(Model):
    """May the job run with fewer nodes while the cluster has no room for all of them? The result is the same: the
    global batch stays, and each rank does the work of those that are missing, one part after the other."""

    min_nodes: Annotated[int, Field(ge=1)] = 1
    """Fewest nodes of an attempt. Between minNodes and nodes those sizes are used that make a step faster than the
    next smaller one does: nodes divided by 1, 2, 3 … and rounded up, so 4, 2, 1 of 4 and 8, 4, 3, 2, 1 of 8."""
    shrink_after_seconds: Seconds = 300
    """An attempt whose pods cannot all be scheduled for this long is taken back, and the next one has as many nodes
    as could be had. Once it has minNodes only, recovery.schedulingTimeoutSeconds applies instead."""
    grow_after_seconds: Seconds = 600
    """A smaller attempt that has made steps for this long asks the scheduler for the missing nodes with placeholder
    pods, and trains on; once these run, it commits and makes way for a larger attempt. After a larger attempt that
    could not be scheduled after all this time doubles, up to 32 times as long."""


class ClaimResources(Model):
    """Size of a claim."""

    requests: dict[Literal["storage"], str]
    """For example storage: 10Gi."""


class ClaimTemplate(Model):
    """A PersistentVolumeClaim that the operator creates for the job and that is deleted with it."""

    storage_class_name: str | None = None
    """Storage class; default: the cluster's default class."""
    access_modes: Annotated[
        list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany", "ReadWriteOncePod"]],
        Field(min_length=1),
    ] = ["ReadWriteMany"]
    """Access modes. Several nodes need ReadWriteMany."""
    resources: ClaimResources
    """Size of the volume."""


class Volume(Model):
    """Where files come from or go to: an existing claim, or a template of one."""

    claim_name: DnsLabel | None = None
    """Name of an existing PersistentVolumeClaim in the job's namespace."""
    claim_template: ClaimTemplate | None = None
    """Template of a claim that the operator creates and that is deleted with the job."""
    sub_path: str | None = None
    """Directory inside the volume to use instead of its root."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        return rules.check(self, rules.VOLUME)


class Volumes(Model):
    """The job's three volumes. One claim may serve several of them."""

    checkpoints: Volume
    """Checkpoints and results are written below <job name>/ on this volume."""
    data: Volume
    """Mounted read-only; holds the data set."""
    models: Volume | None = None
    """Mounted read-only; holds the .pt files that student and teacher name."""


class Export(Model):
    """Formats that the best weights are also written in once the training is done, beside weights/best.pt."""

    formats: Annotated[list[Literal["onnx", "torchscript"]], Field(max_length=2)] = []
    """onnx: weights/best.onnx. torchscript: weights/best.torchscript. Both in fp32 at training.imgsz, as by
    Ultralytics' export."""
    dynamic: bool = False
    """Let the number and size of images vary (onnx; TorchScript's always may)."""
    simplify: bool = True
    """Simplify the ONNX graph."""
    nms: bool | None = None
    """Unset: the model's raw output. true: with non-maximum suppression. false: the head that needs none
    (YOLO26, YOLOv10)."""


class Report(Model):
    """What the report at the end of the training compares the student with, besides its teacher."""

    baseline: RelativePath | None = None
    """Another run: the name of a job whose results are on the checkpoints volume, or a .pt file on the checkpoints
    or models volume. For example a run without a teacher."""


class Scheduling(Model):
    """Where the pods may run."""

    priority_class_name: str | None = None
    """PriorityClass of the pods."""
    node_selector: dict[str, str] | None = None
    """Labels that nodes must have."""
    tolerations: list[dict[str, Any]] | None = None
    """Tolerations of the pods, as in a pod."""


class DistillJobSpec(Model):
    """A training run. What defines it is immutable; image, template, scheduling, elastic, checkpoint, export, report,
    recovery, suspend, deadlines and TTL may change, and count from the next attempt on."""

    student: Student
    """The model to train."""
    teacher: Teacher | None = None
    """The frozen model to learn from. Without a teacher the job is plain multi-node training."""
    dataset: Dataset
    """The data set."""
    distillation: Distillation = Distillation()
    """How the student learns from the teacher."""
    training: Training = Training()
    """Ultralytics' training arguments."""
    nodes: Annotated[int, Field(ge=1, le=1000)] = 1
    """Pods, one per node, that train together."""
    accelerators: Accelerators = Accelerators()
    """What each node's pod asks for."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto: CUDA when accelerators are asked for, else CPU. cpu trains on CPUs even beside accelerators."""
    elastic: Elastic | None = None
    """Whether the job may run with fewer nodes. Default: always with all nodes."""
    checkpoint: Checkpoint = Checkpoint()
    """When progress is committed."""
    export: Export = Export()
    """Formats that the student is also written in at the end."""
    report: Report = Report()
    """What report.html and report.json compare at the end."""
    recovery: Recovery = Recovery()
    """What happens when an attempt ends before the training is done."""
    volumes: Volumes
    """Where data, models and checkpoints are."""
    scheduling: Scheduling = Scheduling()
    """Where the pods may run."""
    image: str | None = None
    """Trainer image. Default: the image that the operator was installed with."""
    template: dict[str, Any] | None = None
    """Additions to the pods, in the form of a pod template (metadata, spec). The container is named trainer."""
    suspend: bool = False
    """True stops the job after a commit and keeps it stopped, false lets it go on."""
    active_deadline_seconds: Seconds | None = None
    """Time from the first attempt's start after which the job is Failed."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Delete the job this long after it finished. Checkpoints on an existing claim stay."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        return rules.check(self, rules.SPEC)

    @property
    def processes_per_node(self) -> int:
        """Training processes in each pod."""
        return self.accelerators.processes_per_node or max(1, self.accelerators.per_node)

    @property
    def world_size(self) -> int:
        """Ranks at full size."""
        return self.nodes * self.processes_per_node

    @property
    def uses_cuda(self) -> bool:
        """Whether ranks train on CUDA devices (nccl) rather than on CPUs (gloo)."""
        return self.device == "cuda" or (self.device == "auto" and self.accelerators.per_node > 0)
