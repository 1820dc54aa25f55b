"""What a pass has observed, as values, however it was read."""

from dataclasses import dataclass, field
from datetime import datetime

from distill_api.job import DistillJob
from distill_api.pod.report import TerminationMessage, TrainerStatus
from distill_api.reasons import Reason
from distill_operator.types import naming


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
    message: str = ""
    """Why the container could not be started, if the container runtime says so."""
    init: bool = False
    """It was an init container, so the trainer never ran."""


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
    """0 if it is a pod of an earlier DistillJob with the same name."""
    phase: str
    created_at: datetime
    owner_uid: str = ""
    """UID of the Job that created it; empty if that Job was deleted and left its pods behind."""
    job_uid: str = ""
    """UID of the DistillJob that it was created for."""
    rank: int | None = None
    """Completion index: the node rank."""
    node: str | None = None
    ip: str | None = None
    scheduled_at: datetime | None = None
    unschedulable: str | None = None
    """The scheduler's message while the pod cannot be scheduled."""
    started_at: datetime | None = None
    """When the training container started."""
    ready: bool = False
    """Whether the training container answers its kubelet's readiness probe. While its node does not answer, this stays
    as it was."""
    deleted_at: datetime | None = None
    """When deletion was requested (not when the grace period ends)."""
    end_due_at: datetime | None = None
    """When the grace period of that deletion ends."""
    disruption: Disruption | None = None
    reason: str = ""
    """status.reason, such as Evicted: set when the kubelet or the control plane ended the pod."""
    message: str = ""
    sandbox_ready: bool = False
    """Its volumes are mounted and its network is configured, so that containers can be created."""
    waiting: str = ""
    """Why a container does not start, such as ImagePullBackOff, or by an event of the pod FailedMount."""
    waiting_message: str = ""
    end: ContainerEnd | None = None
    """How the training container ended, or else another container that failed. Sidecars (init containers that are
    restarted) do not count."""
    gone: bool = False
    """The pod is no longer in the API; this is its state in the last watch event."""

    @property
    def live(self) -> bool:
        """Whether a process of the pod may still be running."""
        return not self.gone and self.phase not in ("Succeeded", "Failed")

    @property
    def orphaned(self) -> bool:
        """Whether nobody but the operator would end it: it runs, and the Job that created it left it behind."""
        return self.live and self.attempt > 0 and not self.owner_uid and self.deleted_at is None

    @property
    def starting(self) -> bool:
        """Whether the pod has a node and not all its containers have started."""
        return self.live and self.phase == "Pending" and self.scheduled_at is not None and self.deleted_at is None

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
    """The attempt that its next pods belong to."""
    owned: bool
    """Whether this DistillJob (by UID) is its controller."""
    created_at: datetime
    nodes: int = 0
    """Pods that it starts."""
    avoids: tuple[str, ...] = ()
    """Nodes that its pods must not run on."""
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
    """Whether it was made for this DistillJob (by UID)."""
    deleting: bool = False


@dataclass(frozen=True)
class Rejection:
    """The API server or an admission plugin refused an object of the job."""

    what: str
    """Kind and name of the object."""
    message: str
    reason: Reason
    """PodRejected if waiting cannot help, else what the job waits for."""


SILENT_MISSES = 3
"""Requests in a row without an answer from which on a rank 0 counts as silent."""


@dataclass(frozen=True)
class Silence:
    """Rank 0 does not answer the operator. Only time in which it was asked counts."""

    misses: int
    """Requests in a row without a good answer, since rank 0 or the operator started."""
    seconds: float
    """From the first to the last of them, by the operator's monotonic clock."""
    why: str
    """Why the last one has no answer."""
    widespread: bool = False
    """Whether most jobs fell silent: the operator's own network is the likely cause."""


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
    """Rank 0's last status, if it answered the last request."""
    silence: Silence | None = None
    """Set while rank 0 is asked and does not answer."""
    rejection: Rejection | None = None
    unknown_fields: tuple[str, ...] = ()
    """Fields of the spec that this version does not know, and that have another value than their default."""
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
        """The attempt's Job, if it exists and belongs to this DistillJob. Another Job of its name is a stray.

        A Job of an earlier attempt that was reserved for this one, but was over before this one started with it, is
        not the attempt's: how it ended says nothing about this one.
        """
        uid = self._job_uid(attempt)
        jobs = (job for job in self.jobs if job.attempt == attempt and job.owned)
        return next((job for job in jobs if (self._can_be_its(job) if uid is None else job.uid == uid)), None)

    def pods_of(self, attempt: int) -> tuple[PodFacts, ...]:
        """The attempt's pods, gone ones included, but not those of a stray, or of an earlier attempt's Job."""
        uid = self._job_uid(attempt)
        others = {known.job_uid for known in self.job.status.attempts if known.job_uid} - {uid}
        pods = (pod for pod in self.pods if pod.attempt == attempt)
        return tuple(pod for pod in pods if (pod.owner_uid in ("", uid) if uid else pod.owner_uid not in others))

    @property
    def strays(self) -> tuple[JobFacts, ...]:
        """Jobs that took the name of an attempt's Job after that was deleted: their creation was carried out late."""
        uids = ((job, self._job_uid(job.attempt)) for job in self.jobs if job.owned)
        return tuple(job for job, uid in uids if uid is not None and job.uid != uid and self._can_be_its(job))

    def _can_be_its(self, job: JobFacts) -> bool:
        """Whether a Job can be its attempt's, or be taken for it: it has the attempt's name, or is not over yet."""
        return job.name == naming.attempt_name(self.name, job.attempt) or not job.inert

    def _job_uid(self, attempt: int) -> str | None:
        """UID of the attempt's Job as stored; None until the operator has seen the Job."""
        return next((known.job_uid for known in self.job.status.attempts if known.number == attempt), None)

    @property
    def live_pods(self) -> tuple[PodFacts, ...]:
        """All training pods of jobs of this name in which a process may still be running, of any attempt."""
        return tuple(pod for pod in self.pods if pod.live)
