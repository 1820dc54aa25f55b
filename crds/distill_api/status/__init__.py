"""status: the observed state of a job. Only the operator writes it. Times are in whole seconds, and each field that has
one says whose clock it is from.
"""

from distill_api.status.attempt import (
    DECISION_LETTERS,
    DECISION_LINES,
    KEPT_AVOIDED_NODES,
    KEPT_VERSION_CHANGES,
    Attempt,
    SpecChange,
    SpecChanges,
    StartProblem,
    StoredOutcome,
    StoredReason,
    VersionChange,
)
from distill_api.status.job import (
    KEPT_ATTEMPTS,
    LIST_KEYS,
    AvoidedNode,
    Condition,
    DistillJobStatus,
    StoredConditionType,
    StoredPhase,
    Waiting,
)
from distill_api.status.progress import Goodput, Progress, Result, Spent

__all__ = [
    "DECISION_LETTERS",
    "DECISION_LINES",
    "KEPT_ATTEMPTS",
    "KEPT_AVOIDED_NODES",
    "KEPT_VERSION_CHANGES",
    "LIST_KEYS",
    "Attempt",
    "AvoidedNode",
    "Condition",
    "DistillJobStatus",
    "Goodput",
    "Progress",
    "Result",
    "SpecChange",
    "SpecChanges",
    "Spent",
    "StartProblem",
    "StoredConditionType",
    "StoredOutcome",
    "StoredPhase",
    "StoredReason",
    "VersionChange",
    "Waiting",
]
