"""spec: the desired state, written by the user. `kubectl explain` prints the docstrings of the fields.

The fields are here, and what is below them in a module for each subject.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from distill_api.base import Model
from distill_api.spec.distillation import Dataset, Distillation, Student, Teacher, Until
from distill_api.spec.outputs import Export, Report
from distill_api.spec.pods import Accelerators, DataCache, Resources, Scheduling, SecretName
from distill_api.spec.recipe import RecipeName
from distill_api.spec.recovery import Checkpoint, Elastic, Reachable, Recovery, Seconds
from distill_api.spec.rules import across
from distill_api.spec.rules.rule import check
from distill_api.spec.training import Training
from distill_api.spec.volumes import ClaimRetentionPolicy, Volume, Volumes

__all__ = [
    "Accelerators", "Checkpoint", "Dataset", "DistillJobSpec", "Distillation", "Elastic", "Export", "Recovery",
    "Report", "Resources", "Scheduling", "SecretName", "Student", "Teacher", "Training", "Until", "Volume", "Volumes",
]  # fmt: skip


class DistillJobSpec(Model):
    """A training run. Fields that define the run can be corrected only while the job is suspended: all until a step is
    committed, then only some of training. image, imagePullSecrets, template, resources, scheduling, elastic,
    dataCache, checkpoint, export, report, recovery, suspend, activeDeadlineSeconds, cleanPodPolicy,
    ttlSecondsAfterFinished and, if elastic is set, nodes may change at any time; what concerns the pods applies from
    the next attempt."""

    student: Student
    """The model to train."""
    teacher: Teacher | None = None
    """The frozen model that the student learns from. Without it the job trains the student alone."""
    dataset: Dataset
    """The data set."""
    recipe: RecipeName = "ultralytics"
    """auto: choose student.init, teacher.batchFraction and distillation as measured best for a student of this kind;
    status.recipe and the report have what was chosen. ultralytics: these fields as they are given, by default what
    Ultralytics does."""
    distillation: Distillation = Distillation()
    """How the student learns from the teacher."""
    training: Training = Training()
    """Ultralytics' training arguments."""
    nodes: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of pods, each on a node of its own, that train together. With elastic it can be changed while the job
    runs, also with kubectl scale: with a lower number the attempt commits at once and a smaller one replaces it, with a
    higher one the job grows as after a shortage. It cannot exceed the number that the first attempt started with."""
    accelerators: Accelerators = Accelerators()
    """Accelerators of each pod."""
    resources: Resources | None = None
    """Requests and limits of the training container other than accelerators. Default: requests of cpu and memory from
    the number of processes and training.workers, and no limits."""
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
    data_cache: DataCache | None = None
    """Copies of the images on each node, so that an attempt reads each of them from the data volume only once a node:
    for network storage that is slower than the training. Default: none."""
    persistent_volume_claim_retention_policy: ClaimRetentionPolicy = ClaimRetentionPolicy()
    """What happens to claims that the operator creates from claim templates when the job is deleted."""
    scheduling: Scheduling = Scheduling()
    """Where the pods may run."""
    image: str | None = None
    """Trainer image. Default: the image in the operator's configuration."""
    image_pull_secrets: Annotated[list[SecretName], Field(max_length=16)] = []
    """Secrets for pulling the images of the pods."""
    template: dict[str, Any] | None = None
    """Additions to the pods, as a pod template (metadata, spec). The training container is named trainer."""
    check_only: bool = False
    """true: check volumes, models, the pair and the data set in one pod without accelerators; train nothing, and leave
    nothing on the checkpoints volume. distill validate --cluster makes such a job of any other, waits for its end, and
    deletes it."""
    suspend: bool = False
    """true: checkpoint and stop; false: resume."""
    active_deadline_seconds: Seconds | None = None
    """Seconds that the job may be active before it is marked Failed, as in batch/v1: the time starts when an attempt is
    admitted, goes on over restarts, and starts anew after a suspension by the user or a queue."""
    clean_pod_policy: Literal["None", "All"] = "None"
    """What is deleted when the job is finished. None: nothing; the last attempt's pods stay, with their logs, while the
    job exists. All: its pods."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0), Reachable] | None = None
    """Seconds after which the finished job is deleted. Checkpoints on an existing or a retained claim are kept."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        return check(self, across.SPEC)

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
