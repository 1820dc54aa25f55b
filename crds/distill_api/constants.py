"""Names and numbers that more than one program must agree on. Each is written here and nowhere else."""

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
"""Pattern of a DistillJob's name: Services are named after it, so it is a DNS-1035 label."""
JOB_NAME_LENGTH: Final = 52
"""Longest name of a DistillJob: its pods' host names stay within 63 characters."""

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
    """Pods that ask the scheduler for the nodes that a smaller attempt lacks, and hold them until it has grown."""


TRAINER_CONTAINER: Final = "trainer"
TRAINER_USER: Final = 65532
"""User and group of training processes, also in the Dockerfile: who must be able to write the checkpoints volume."""

METRICS_PORT: Final = 9400
"""Rank 0 of a pod serves /metrics, /status and /healthz here; LOCAL_RANK n serves at this port + n."""
RENDEZVOUS_PORT: Final = 29400
OPERATOR_METRICS_PORT: Final = 9090
OPERATOR_HEALTH_PORT: Final = 8080


class Path:
    """Where a training container finds its volumes. A job's own files lie under CHECKPOINTS/<job name>/."""

    CHECKPOINTS: Final = "/checkpoints"
    DATA: Final = "/data"
    MODELS: Final = "/models"
    SHM: Final = "/dev/shm"
    SCRATCH: Final = "/tmp"
    TERMINATION: Final = "/dev/termination-log"


class JobFile:
    """Files of a job, relative to CHECKPOINTS/<job name>/, that more than the trainer looks at."""

    CHECKPOINTS: Final = "checkpoints"
    """Folder of resumable checkpoints."""
    FENCE: Final = "checkpoints/fence"
    """JSON {uid, attempt}: the newest attempt, the only one that may commit."""
    BEST: Final = "weights/best.pt"
    LAST: Final = "weights/last.pt"
    RESULTS: Final = "results.csv"
    REPORT: Final = "report.html"
    """Student, teacher and baseline compared, and a list of everything else that the run has left."""


class Env:
    """Environment of a training container that the operator sets and nobody else may."""

    RUN: Final = "DISTILL_RUN"
    """The RunConfig as JSON."""
    NODE_RANK: Final = "JOB_COMPLETION_INDEX"
    """Set by the Job controller of an Indexed Job."""
    PARENT: Final = "DISTILL_PARENT"
    """Process that a launcher without Kubernetes belongs to: when it is gone, the attempt commits and ends."""


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
"""A pod template that sets one of these would break the rendezvous and is refused."""


class ExitCode(IntEnum):
    """What a training container's exit code says. Anything else is a failure that may be tried again."""

    DONE = 0
    PERMANENT = 78
    """Wrong configuration, data or models: trying again cannot help (EX_CONFIG of sysexits)."""
    STOPPED = 143
    """Stopped on request (SIGTERM) with a committed checkpoint."""


class Phase(StrEnum):
    """status.phase: a summary for people. Programs wait for conditions."""

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
    """Ended by the operator or the user; charged to no budget."""
