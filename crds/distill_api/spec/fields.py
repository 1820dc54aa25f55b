"""spec: the desired state, written by the user. `kubectl explain` prints the docstrings of the fields."""

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
    """Load a .pt file with classes other than Ultralytics' and torch's. Such a file can run any code in the training
    pods and is refused by default."""


class Teacher(Model):
    """The frozen model that the student learns from."""

    model: RelativePath
    """A trained .pt file on the models volume, for example digits-teacher/weights/best.pt."""
    sha256: Sha256 | None = None
    """SHA-256 of the file, 64 lower case hex digits. If the file has another digest, the job fails before anything of
    the file is loaded."""
    trust_pickle: bool = False
    """Load a file with classes other than Ultralytics' and torch's. Such a file can run any code in the training pods
    and is refused by default. Set sha256 as well, so that only this file is trusted."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the teacher's computations. auto: bf16 or fp16 on CUDA, bf16 on CPUs with AMX, else fp32."""


class Dataset(Model):
    """The data set, in Ultralytics' format."""

    config: RelativePath
    """The data set's YAML file on the data volume."""


class Until(Model):
    """When distillation ends; set exactly one field. Training then continues without the teacher."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """After this many epochs."""
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """After this fraction of all training steps."""
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
    cwd: divergence of each channel's spatial distribution. pkd: correlation of each channel. logit: cross-entropy of
    the class scores, without a projector."""
    schedule: Literal["constant", "cosine", "stop"] = "constant"
    """How the weight changes. constant: it does not. cosine: it decreases to zero at `until`, or at the end of the
    training. stop: it is constant until `until`, then zero. From then on the teacher does not run."""
    until: Until | None = None
    """When the weight becomes zero. Required for stop, optional for cosine."""
    allow_cross_family: bool = False
    """Allow a teacher and a student of different YOLO families. Experimental."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        return rules.check(self, rules.DISTILLATION)


class Accelerators(Model):
    """Accelerators of each pod."""

    resource: Annotated[str, Field(min_length=1, max_length=253)] = "nvidia.com/gpu"
    """Name of the accelerator's extended resource."""
    per_node: Annotated[int, Field(ge=0, le=64)] = 1
    """Accelerators per node, each with one training process. 0: train on CPUs with gloo."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Training processes per node. Default: perNode, or 1 if perNode is 0. On CUDA it must be perNode."""


class Checkpoint(Model):
    """When checkpoints are committed to the checkpoints volume."""

    interval_seconds: Seconds | Literal["auto"] = 60
    """Seconds between checkpoints; one is also committed at the end of every epoch. auto: between 5 and 600 seconds,
    computed from the measured cost of a commit and the measured frequency of disruptions."""
    keep: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of newest checkpoints to keep. If the newest one is damaged, the one before it is used."""


class Recovery(Model):
    """What happens when an attempt ends before the training is complete."""

    max_failures: Annotated[int, Field(ge=0)] = 3
    """Maximum failures (crashes, out of memory, stalls) before the job is marked Failed."""
    max_preemptions: Annotated[int, Field(ge=0)] | None = None
    """Maximum disruptions (preemption, eviction, node loss, deleted pods) before the job is marked Failed. Default: no
    limit."""
    stall_timeout_seconds: Seconds = 600
    """An attempt without progress, neither steps nor a validation, for this long ends with the reason Stalled."""
    scheduling_timeout_seconds: Seconds = 900
    """An attempt whose pods are not all scheduled within this time is withdrawn and tried again. Time in a queue, while
    its Job is suspended, does not count."""
    grace_period_seconds: Annotated[int, Field(ge=10, le=3600)] = 60
    """Time that a pod has after SIGTERM to commit a checkpoint."""
    node_lost_timeout_seconds: Seconds = 60
    """If a node does not confirm the end of a pod within this time after the pod's grace period, the node is considered
    lost: the operator force-deletes the pod and starts the next attempt. Processes that still run on the node can no
    longer commit. The default gives a kubelet time to restart."""
    max_restarts_without_progress: Annotated[int, Field(ge=1)] = 5
    """Maximum restarts in a row without a newly committed step before the job is marked Failed, whatever the budgets
    allow."""


class Elastic(Model):
    """Lets the job run on fewer nodes when capacity is short. The result is the same: the global batch does not change,
    because each rank also does a part of the missing ranks' work."""

    min_nodes: Annotated[int, Field(ge=1)] = 1
    """Minimum nodes of an attempt. Only sizes that make a step faster than the next smaller size are used: nodes
    divided by 1, 2, 3 and so on, rounded up, for example 4, 2, 1 for 4 nodes and 8, 4, 3, 2, 1 for 8."""
    shrink_after_seconds: Seconds = 300
    """An attempt whose pods are not all scheduled within this time is withdrawn, and the next one has as many nodes as
    were available. For an attempt with minNodes, recovery.schedulingTimeoutSeconds applies instead."""
    grow_after_seconds: Seconds = 600
    """After an attempt on fewer nodes has trained for this long, the operator creates placeholder pods for the missing
    nodes. Once these run, the attempt commits and a larger one replaces it. Each time the larger attempt cannot be
    scheduled after all, this time doubles, up to 32 times."""


class ClaimResources(Model):
    """Requested size of a claim."""

    requests: dict[Literal["storage"], str]
    """For example storage: 10Gi."""


class ClaimTemplate(Model):
    """A PersistentVolumeClaim that the operator creates for the job, and that is deleted with the job."""

    storage_class_name: str | None = None
    """Storage class; default: the cluster's default class."""
    access_modes: Annotated[
        list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany", "ReadWriteOncePod"]],
        Field(min_length=1),
    ] = ["ReadWriteMany"]
    """Access modes. Jobs with more than one node need ReadWriteMany."""
    resources: ClaimResources
    """Size of the volume."""


class Volume(Model):
    """A volume: an existing claim, or a template for a claim."""

    claim_name: DnsLabel | None = None
    """Name of an existing PersistentVolumeClaim in the job's namespace."""
    claim_template: ClaimTemplate | None = None
    """Template for a claim that the operator creates, and that is deleted with the job."""
    sub_path: str | None = None
    """Directory inside the volume to use instead of its root."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        return rules.check(self, rules.VOLUME)


class Volumes(Model):
    """The volumes of the job. They may share a claim."""

    checkpoints: Volume
    """Checkpoints and results, written below <job name>/."""
    data: Volume
    """The data set; mounted read-only."""
    models: Volume | None = None
    """The .pt files of student and teacher; mounted read-only."""


class Export(Model):
    """Additional formats of the best weights, written next to weights/best.pt after the training."""

    formats: Annotated[list[Literal["onnx", "torchscript"]], Field(max_length=2)] = []
    """onnx: weights/best.onnx. torchscript: weights/best.torchscript. Both are in fp32 at training.imgsz, as in
    Ultralytics' export."""
    dynamic: bool = False
    """Allow any number and size of images (onnx; torchscript always does)."""
    simplify: bool = True
    """Simplify the ONNX graph."""
    nms: bool | None = None
    """Unset: the model's raw output. true: with non-maximum suppression. false: the head that does not need it (YOLO26,
    YOLOv10)."""


class Report(Model):
    """What the report compares the student with, besides the teacher."""

    baseline: RelativePath | None = None
    """Another run, for example one without a teacher: the name of a job whose results are on the checkpoints volume, or
    a .pt file on the checkpoints or models volume."""


class Scheduling(Model):
    """Where the pods may run."""

    priority_class_name: str | None = None
    """PriorityClass of the pods."""
    node_selector: dict[str, str] | None = None
    """Labels that nodes must have to run the pods."""
    tolerations: list[dict[str, Any]] | None = None
    """Tolerations of the pods, as in a pod."""


class DistillJobSpec(Model):
    """A training run. Fields that define the run are immutable. image, template, scheduling, elastic, checkpoint,
    export, report, recovery, suspend, activeDeadlineSeconds and ttlSecondsAfterFinished may change; what concerns the
    pods applies from the next attempt."""

    student: Student
    """The model to train."""
    teacher: Teacher | None = None
    """The frozen model that the student learns from. Without it the job trains the student alone."""
    dataset: Dataset
    """The data set."""
    distillation: Distillation = Distillation()
    """How the student learns from the teacher."""
    training: Training = Training()
    """Ultralytics' training arguments."""
    nodes: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of pods, each on a node of its own, that train together."""
    accelerators: Accelerators = Accelerators()
    """Accelerators of each pod."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto: CUDA if accelerators are requested, else CPU. cpu: train on CPUs in any case."""
    elastic: Elastic | None = None
    """Lets the job run on fewer nodes when capacity is short. Default: all attempts have all nodes."""
    checkpoint: Checkpoint = Checkpoint()
    """When checkpoints are committed."""
    export: Export = Export()
    """Additional formats of the best weights."""
    report: Report = Report()
    """What report.html and report.json compare."""
    recovery: Recovery = Recovery()
    """What happens when an attempt ends before the training is complete."""
    volumes: Volumes
    """Where data, models and checkpoints are."""
    scheduling: Scheduling = Scheduling()
    """Where the pods may run."""
    image: str | None = None
    """Trainer image. Default: the image in the operator's configuration."""
    template: dict[str, Any] | None = None
    """Additions to the pods, as a pod template (metadata, spec). The training container is named trainer."""
    suspend: bool = False
    """true: checkpoint and stop; false: resume."""
    active_deadline_seconds: Seconds | None = None
    """Seconds from the start of the first attempt after which the job is marked Failed."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Seconds after which the finished job is deleted. Checkpoints on an existing claim are kept."""

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
