"""What one pass has seen, as values. Nothing here knows how it was read."""

from dataclasses import dataclass, field
from datetime import datetime

from distill_api.job import DistillJob
from distill_api.pod.report import TerminationMessage, TrainerStatus
from distill_api.reasons import Reason


@dataclass(frozen=True)
class ContainerEnd:
    """How a container ended."""

    container: str
    exit_code: int
    at: datetime
    reason: str = ""
    """The kubelet's word, such as OOMKilled or Error."""
    report: TerminationMessage | None = None
    """What the trainer wrote, when it could still write and it was well-formed."""


@dataclass(frozen=True)
class Disruption:
    """A DisruptionTarget condition that is True."""

    reason: str
    message: str
    at: datetime


@dataclass(frozen=True)
class PodFacts:
    """What matters of a training pod."""

    name: str
    uid: str
    attempt: int
    """0 when the pod belongs to no attempt of this DistillJob, though it carries its name."""
    phase: str
    created_at: datetime
    owner_uid: str = ""
    """UID of the Job that made it."""
    rank: int | None = None
    """Completion index: the node rank."""
    node: str | None = None
    ip: str | None = None
    scheduled_at: datetime | None = None
    unschedulable: str | None = None
    """The scheduler's message, while it finds no place."""
    started_at: datetime | None = None
    """When the training container started."""
    deleted_at: datetime | None = None
    """When deletion was asked for (not when the grace period ends)."""
    end_due_at: datetime | None = None
    """When the grace period of that deletion ends."""
    disruption: Disruption | None = None
    reason: str = ""
    """status.reason: set when the kubelet or the control plane ended the pod, such as Evicted."""
    message: str = ""
    waiting: str = ""
    """Why the container does not start, such as ImagePullBackOff."""
    waiting_message: str = ""
    end: ContainerEnd | None = None
    """The training container's end, or that of another container that failed."""
    gone: bool = False
    """The object is no longer in the API; these are the last facts that a watch event told."""

    @property
    def live(self) -> bool:
        """Whether a process of the pod may still run."""
        return not self.gone and self.phase not in ("Succeeded", "Failed")

    @property
    def running(self) -> bool:
        """Whether the pod's containers run and nobody asked them to stop."""
        return self.live and self.phase == "Running" and self.deleted_at is None


@dataclass(frozen=True)
class JobFacts:
    """What matters of the batch/v1 Job of an attempt."""

    name: str
    uid: str
    attempt: int
    owned: bool
    """Whether this DistillJob (by UID) is its controller."""
    created_at: datetime
    deleting: bool = False
    suspended: bool = False
    complete: bool = False
    failing_at: datetime | None = None
    """When the Job controller gave it up (condition FailureTarget or Failed)."""
    failure_reason: str = ""
    failure_message: str = ""

    @property
    def inert(self) -> bool:
        """Whether the Job controller will create no pod for it any more."""
        return self.deleting or self.complete or self.failing_at is not None


@dataclass(frozen=True)
class Placeholders:
    """The Job of placeholder pods, and the pods that it has now."""

    job: JobFacts
    pods: tuple[PodFacts, ...] = ()


@dataclass(frozen=True)
class ServiceFacts:
    """What matters of an attempt's headless Service."""

    name: str
    uid: str
    attempt: int
    owned: bool


@dataclass(frozen=True)
class ClaimFacts:
    """What matters of a PersistentVolumeClaim."""

    name: str
    access_modes: tuple[str, ...] = ()
    phase: str = "Pending"
    owned: bool = False
    """Whether this DistillJob (by UID) is its controller."""
    deleting: bool = False


@dataclass(frozen=True)
class Rejection:
    """The API server or an admission plugin refused an object of the job."""

    what: str
    """Kind and name of the object."""
    message: str
    reason: Reason = Reason.POD_REJECTED
    """PodRejected when waiting cannot help, else what the job waits for."""


@dataclass(frozen=True)
class Observed:
    """The whole picture of one DistillJob at one moment."""

    job: DistillJob
    namespace: str
    deleting: bool = False
    jobs: tuple[JobFacts, ...] = ()
    pods: tuple[PodFacts, ...] = ()
    """Pods in the API, and those of the newest attempt that were seen by a watch and are gone."""
    services: tuple[ServiceFacts, ...] = ()
    claims: tuple[ClaimFacts, ...] | None = None
    """Claims that the job names and that exist; None when they were not read in this pass."""
    placeholders: Placeholders | None = None
    """Pods that ask for further nodes; they are none of the gang and stand in no other list."""
    trainer: TrainerStatus | None = None
    """What rank 0 answered, when there was somebody to ask."""
    rejection: Rejection | None = None
    victims: dict[str, str] = field(default_factory=dict)
    """Pod name → message of the scheduler's Preempted event; read when only the Job tells of a disruption."""

    @property
    def name(self) -> str:
        """Name of the DistillJob."""
        return self.job.metadata.name

    @property
    def uid(self) -> str:
        """UID of the DistillJob."""
        return self.job.metadata.uid or ""

    def job_of(self, attempt: int) -> JobFacts | None:
        """The attempt's Job, if it exists and is ours."""
        return next((job for job in self.jobs if job.attempt == attempt and job.owned), None)

    def pods_of(self, attempt: int) -> tuple[PodFacts, ...]:
        """The attempt's pods, gone ones included."""
        return tuple(pod for pod in self.pods if pod.attempt == attempt)

    @property
    def live_pods(self) -> tuple[PodFacts, ...]:
        """Every pod with the job's label in which a process may still run, of whatever attempt."""
        return tuple(pod for pod in self.pods if pod.live)
