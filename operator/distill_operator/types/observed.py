"""What a pass has observed, as values, however it was read."""

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
    """The kubelet's reason, such as OOMKilled or Error."""
    report: TerminationMessage | None = None
    """The trainer's termination message, if there is a well-formed one."""


@dataclass(frozen=True)
class Disruption:
    """A DisruptionTarget condition that is True."""

    reason: str
    message: str
    at: datetime


@dataclass(frozen=True)
class PodFacts:
    """A training pod."""

    name: str
    uid: str
    attempt: int
    """0 if the pod has the DistillJob's label but belongs to none of its attempts."""
    phase: str
    created_at: datetime
    owner_uid: str = ""
    """UID of the Job that created it."""
    rank: int | None = None
    """Completion index: the node rank."""
    node: str | None = None
    ip: str | None = None
    scheduled_at: datetime | None = None
    unschedulable: str | None = None
    """The scheduler's message while the pod cannot be scheduled."""
    started_at: datetime | None = None
    """When the training container started."""
    deleted_at: datetime | None = None
    """When deletion was requested (not when the grace period ends)."""
    end_due_at: datetime | None = None
    """When the grace period of that deletion ends."""
    disruption: Disruption | None = None
    reason: str = ""
    """status.reason, such as Evicted: set when the kubelet or the control plane ended the pod."""
    message: str = ""
    waiting: str = ""
    """Why a container does not start, such as ImagePullBackOff."""
    waiting_message: str = ""
    end: ContainerEnd | None = None
    """How the training container ended, or else another container that failed."""
    gone: bool = False
    """The pod is no longer in the API; this is its state in the last watch event."""

    @property
    def live(self) -> bool:
        """Whether a process of the pod may still be running."""
        return not self.gone and self.phase not in ("Succeeded", "Failed")

    @property
    def running(self) -> bool:
        """Whether the pod is running and is not being deleted."""
        return self.live and self.phase == "Running" and self.deleted_at is None


@dataclass(frozen=True)
class JobFacts:
    """The batch/v1 Job of an attempt."""

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
    """When the Job controller marked it as failed (condition FailureTarget or Failed)."""
    failure_reason: str = ""
    failure_message: str = ""

    @property
    def inert(self) -> bool:
        """Whether the Job controller will create no more pods for it."""
        return self.deleting or self.complete or self.failing_at is not None


@dataclass(frozen=True)
class Placeholders:
    """The Job of placeholder pods, and its pods."""

    job: JobFacts
    pods: tuple[PodFacts, ...] = ()


@dataclass(frozen=True)
class ServiceFacts:
    """An attempt's headless Service."""

    name: str
    uid: str
    attempt: int
    owned: bool


@dataclass(frozen=True)
class ClaimFacts:
    """A PersistentVolumeClaim."""

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
    """PodRejected if waiting cannot help, else what the job waits for."""


@dataclass(frozen=True)
class Observed:
    """Everything about one DistillJob at one moment."""

    job: DistillJob
    namespace: str
    deleting: bool = False
    jobs: tuple[JobFacts, ...] = ()
    pods: tuple[PodFacts, ...] = ()
    """Pods in the API, and pods of the newest attempt that are gone but were seen by a watch."""
    services: tuple[ServiceFacts, ...] = ()
    claims: tuple[ClaimFacts, ...] | None = None
    """The job's claims that exist; None if they were not read in this pass."""
    placeholders: Placeholders | None = None
    """The pods that ask for more nodes; `jobs` and `pods` do not contain them."""
    trainer: TrainerStatus | None = None
    """Rank 0's status, if it answered."""
    rejection: Rejection | None = None
    victims: dict[str, str] = field(default_factory=dict)
    """Pod name to message of the scheduler's Preempted event; read when only the Job shows a disruption."""

    @property
    def name(self) -> str:
        """Name of the DistillJob."""
        return self.job.metadata.name

    @property
    def uid(self) -> str:
        """UID of the DistillJob."""
        return self.job.metadata.uid or ""

    def job_of(self, attempt: int) -> JobFacts | None:
        """The attempt's Job, if it exists and belongs to this DistillJob."""
        return next((job for job in self.jobs if job.attempt == attempt and job.owned), None)

    def pods_of(self, attempt: int) -> tuple[PodFacts, ...]:
        """The attempt's pods, gone ones included."""
        return tuple(pod for pod in self.pods if pod.attempt == attempt)

    @property
    def live_pods(self) -> tuple[PodFacts, ...]:
        """All pods with the job's label in which a process may still be running, of any attempt."""
        return tuple(pod for pod in self.pods if pod.live)
