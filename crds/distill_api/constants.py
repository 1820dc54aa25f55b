"""Names and numbers that more than one program uses. Each is defined here only."""

from enum import IntEnum, StrEnum
from typing import Any, Final

GROUP: Final = "distilljob.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "DistillJob"
PLURAL: Final = "distilljobs"
SINGULAR: Final = "distilljob"
SHORT_NAME: Final = "dj"

JOB_NAME: Final = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""Pattern of a DistillJob's name, a DNS-1035 label, because Services are named after it."""
JOB_NAME_LENGTH: Final = 52
"""Maximum length of a DistillJob's name, so that its pods' host names have at most 63 characters."""

FIELD_MANAGER: Final = "distill-operator"

SCHEMA_HASH: Final = f"{GROUP}/schema-hash"
"""Annotation of the CRD: which schema it has, whatever the API server adds to it."""
AVOIDED_NODES: Final = f"{GROUP}/avoided-nodes"
"""Annotation of a Job: the nodes that its pods must not run on, separated by commas."""

COMPLETION_INDEX: Final = "batch.kubernetes.io/job-completion-index"
"""Kubernetes' label and annotation of an Indexed Job's pods: their node rank."""


class OpenEnum(StrEnum):
    """Words of which a newer version may have more. Stored objects are read with all of them."""

    @classmethod
    def read(cls, word: Any) -> Any:
        """The member for this word. An unknown word becomes a value of this type that equals no member; what is no
        text is returned as it is.
        """
        if not isinstance(word, str):
            return word
        if word in cls._value2member_map_:
            return cls(word)
        unknown = str.__new__(cls, word)
        unknown._name_ = unknown._value_ = word
        return unknown

    @property
    def known(self) -> bool:
        """Whether this version has the word."""
        return self._value_ in type(self)._value2member_map_

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self).read, (str(self),)


class Label:
    """Labels on every child of a DistillJob."""

    JOB: Final = f"{GROUP}/job"
    UID: Final = f"{GROUP}/uid"
    """UID of the DistillJob, so that a pod is known as the job's even when the Job that created it is gone."""
    ATTEMPT: Final = f"{GROUP}/attempt"
    COMMITTED_STEP: Final = f"{GROUP}/committed-step"
    """On pods: the newest committed step when they were made, without which the attempt must not begin."""
    COMPONENT: Final = "app.kubernetes.io/component"
    MANAGED_BY: Final = "app.kubernetes.io/managed-by"
    NAME: Final = "app.kubernetes.io/name"


class QueueLabel(StrEnum):
    """Labels of Kueue, which the Jobs of a DistillJob's attempts take over from it."""

    QUEUE_NAME = "kueue.x-k8s.io/queue-name"
    PRIORITY_CLASS = "kueue.x-k8s.io/priority-class"


class Component(StrEnum):
    """Values of the component label."""

    OPERATOR = "operator"
    TRAINER = "trainer"
    CHECK = "check"
    PLACEHOLDER = "placeholder"
    """Pods that request the nodes that a smaller attempt lacks, and reserve them until it has grown."""


TRAINER_CONTAINER: Final = "trainer"


class Requests:
    """What a training pod requests unless spec.resources or spec.template says otherwise. These are minimums with which
    a rank is fed in time; a pod with one accelerator fits a node with 4 CPUs, as the smallest common ones have."""

    CPU_PER_PROCESS: Final = 500
    """Thousandths of a CPU, like the next."""
    CPU_PER_WORKER: Final = 250
    MEMORY_PER_PROCESS: Final = 1024
    """MiB, like the next."""
    MEMORY_PER_WORKER: Final = 256
    BATCHES_PER_WORKER: Final = 6
    """Batches of a rank, as bytes, for which a worker of its loader has memory. The trainer keeps to it."""
    WORKERS: Final = 8
    """At most this many of training.workers count."""


TRAINER_USER: Final = 65532
"""User and group of the training processes, as in the Dockerfile; they need write access to the checkpoints volume."""

METRICS_PORT: Final = 9400
"""The first rank of a pod serves /metrics, /status and /healthz here; the rank with LOCAL_RANK n at this port + n."""
RENDEZVOUS_PORT: Final = 29400
OPERATOR_METRICS_PORT: Final = 9090
OPERATOR_HEALTH_PORT: Final = 8080


class Path:
    """Where a training container mounts its volumes. The files of a job are below CHECKPOINTS/<job name>/."""

    CHECKPOINTS: Final = "/checkpoints"
    DATA: Final = "/data"
    MODELS: Final = "/models"
    DATA_CACHE: Final = "/data-cache"
    SHM: Final = "/dev/shm"
    SCRATCH: Final = "/tmp"
    TERMINATION: Final = "/dev/termination-log"


class JobFile:
    """Files of a job, relative to CHECKPOINTS/<job name>/, that not only the trainer uses."""

    CHECKPOINTS: Final = "checkpoints"
    """Folder of resumable checkpoints."""
    FENCE: Final = "checkpoints/fence"
    """JSON {uid, attempt, holder, execution} of the only life of the job's gang that may commit."""
    BEST: Final = "weights/best.pt"
    LAST: Final = "weights/last.pt"
    RESULTS: Final = "results.csv"
    REPORT: Final = "report.html"
    """Compares student, teacher and baseline, and lists all other results of the run."""


class Env:
    """Environment variables of a training container that only the operator may set."""

    RUN: Final = "DISTILL_RUN"
    """The RunConfig as JSON."""
    ATTEMPT: Final = "DISTILL_ATTEMPT"
    """Number of the attempt, from the pod's label: a queue may start a Job again, for a later attempt than RUN says."""
    COMMITTED_STEP: Final = "DISTILL_COMMITTED_STEP"
    """The newest step that the job's status says is committed, from the pod's label; empty or 0 for none."""
    NODE_RANK: Final = "JOB_COMPLETION_INDEX"
    """Set by the Job controller for an Indexed Job."""
    PARENT: Final = "DISTILL_PARENT"
    """PID of the process that started a launcher without Kubernetes: when it is gone, the attempt commits and ends."""


RESERVED_ENV: Final = frozenset(
    {
        Env.RUN,
        Env.ATTEMPT,
        Env.COMMITTED_STEP,
        Env.NODE_RANK,
        Env.PARENT,
        "MASTER_ADDR",
        "MASTER_PORT",
        "RANK",
        "LOCAL_RANK",
        "GROUP_RANK",
        "ROLE_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "GROUP_WORLD_SIZE",
        "ROLE_WORLD_SIZE",
        "TORCH_ELASTIC_WORKER_IDENTICAL",
    }
)
RESERVED_ENV_PREFIXES: Final = ("DISTILL_", "TORCHELASTIC_")
"""A pod template that sets one of these names, or a name with one of these prefixes, is rejected, because it would
break the rendezvous."""


class ExitCode(IntEnum):
    """Exit codes of a training container. Any other code is a failure that is retried, unless recovery.exitCodes has a
    rule for it."""

    DONE = 0
    PERMANENT = 78
    """Invalid configuration, data or models: errors that a retry cannot fix are not retried (EX_CONFIG of sysexits)."""
    STOPPED = 143
    """Stopped on request (SIGTERM) after committing a checkpoint."""


class Phase(OpenEnum):
    """status.phase: a summary for people. Programs should use conditions."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    RECOVERING = "Recovering"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


TERMINAL_PHASES: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED})


class ConditionType(OpenEnum):
    """Types of status.conditions."""

    VALIDATED = "Validated"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    DEGRADED = "Degraded"
    COMPLETE = "Complete"
    FAILED = "Failed"
    RECONCILING = "Reconciling"
    """As kstatus defines it, like the next: only present while it is True."""
    STALLED = "Stalled"


class Outcome(OpenEnum):
    """status.attempts[].outcome."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    DISRUPTED = "Disrupted"
    FAILED = "Failed"
    WITHDRAWN = "Withdrawn"
    """Not charged to a budget: ended by operator, user or queue, or with an exit code that a rule ignores."""
