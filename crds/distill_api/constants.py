"""Names and numbers that more than one program uses. Each is defined here only."""

from enum import IntEnum, StrEnum
from typing import Final

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


class Label:
    """Labels on every child of a DistillJob."""

    JOB: Final = f"{GROUP}/job"
    ATTEMPT: Final = f"{GROUP}/attempt"
    COMPONENT: Final = "app.kubernetes.io/component"
    MANAGED_BY: Final = "app.kubernetes.io/managed-by"
    NAME: Final = "app.kubernetes.io/name"


class Component(StrEnum):
    """Values of the component label."""

    OPERATOR = "operator"
    TRAINER = "trainer"
    CHECK = "check"
    PLACEHOLDER = "placeholder"
    """Pods that request the nodes that a smaller attempt lacks, and reserve them until it has grown."""


TRAINER_CONTAINER: Final = "trainer"
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
    SHM: Final = "/dev/shm"
    SCRATCH: Final = "/tmp"
    TERMINATION: Final = "/dev/termination-log"


class JobFile:
    """Files of a job, relative to CHECKPOINTS/<job name>/, that not only the trainer uses."""

    CHECKPOINTS: Final = "checkpoints"
    """Folder of resumable checkpoints."""
    FENCE: Final = "checkpoints/fence"
    """JSON {uid, attempt} of the newest attempt, which is the only one that may commit."""
    BEST: Final = "weights/best.pt"
    LAST: Final = "weights/last.pt"
    RESULTS: Final = "results.csv"
    REPORT: Final = "report.html"
    """Compares student, teacher and baseline, and lists all other results of the run."""


class Env:
    """Environment variables of a training container that only the operator may set."""

    RUN: Final = "DISTILL_RUN"
    """The RunConfig as JSON."""
    NODE_RANK: Final = "JOB_COMPLETION_INDEX"
    """Set by the Job controller for an Indexed Job."""
    PARENT: Final = "DISTILL_PARENT"
    """PID of the process that started a launcher without Kubernetes: when it is gone, the attempt commits and ends."""


RESERVED_ENV: Final = frozenset(
    {
        Env.RUN,
        Env.NODE_RANK,
        Env.PARENT,
        "MASTER_ADDR",
        "MASTER_PORT",
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
    }
)
"""A pod template that sets one of these is rejected, because it would break the rendezvous."""


class ExitCode(IntEnum):
    """Exit codes of a training container. Any other code is a failure that is retried."""

    DONE = 0
    PERMANENT = 78
    """Invalid configuration, data or models: errors that a retry cannot fix are not retried (EX_CONFIG of sysexits)."""
    STOPPED = 143
    """Stopped on request (SIGTERM) after committing a checkpoint."""


class Phase(StrEnum):
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


class ConditionType(StrEnum):
    """Types of status.conditions."""

    VALIDATED = "Validated"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    DEGRADED = "Degraded"
    COMPLETE = "Complete"
    FAILED = "Failed"


class Outcome(StrEnum):
    """status.attempts[].outcome."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    DISRUPTED = "Disrupted"
    FAILED = "Failed"
    WITHDRAWN = "Withdrawn"
    """Ended by the operator or the user; not charged to a budget."""
