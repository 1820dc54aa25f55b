"""Machine-readable reasons, and what each of them means for a job."""

from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """Machine-readable reasons of conditions, events and termination messages."""

    ACCEPTED = "Accepted"
    # Why a job waits.
    CLAIM_NOT_FOUND = "ClaimNotFound"
    CLAIM_NOT_BOUND = "ClaimNotBound"
    UNSCHEDULABLE = "Unschedulable"
    PODS_STARTING = "PodsStarting"
    BACKING_OFF = "BackingOff"
    NAME_TAKEN = "NameTaken"
    QUOTA_EXCEEDED = "QuotaExceeded"
    NOT_ADMITTED = "NotAdmitted"
    """An object is refused for a reason that may pass, such as a PriorityClass that does not exist yet."""
    PODS_TERMINATING = "PodsTerminating"
    # What an attempt does or did.
    ATTEMPT_CREATED = "AttemptCreated"
    TRAINING = "Training"
    RESUMED = "Resumed"
    VERSIONS_CHANGED = "VersionsChanged"
    """An attempt resumed with other versions of PyTorch, Ultralytics or the trainer than wrote its checkpoint."""
    FEWER_NODES = "FewerNodes"
    """An elastic job runs with fewer nodes than it asks for."""
    SUSPENDED_BY_USER = "SuspendedByUser"
    COMPLETED = "Completed"
    # Why an attempt ended without being done: disruptions.
    PREEMPTED = "Preempted"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    POD_DELETED = "PodDeleted"
    DISRUPTED = "Disrupted"
    """A disruption whose kind is no longer known, because it ended while the operator was away."""
    SCHEDULING_TIMEOUT = "SchedulingTimeout"
    STOPPED = "Stopped"
    # … the end of an attempt that makes way for one with more nodes …
    GROWING = "Growing"
    # … and failures that may be tried again.
    OUT_OF_MEMORY = "OutOfMemory"
    PROCESS_KILLED = "ProcessKilled"
    TRAINER_ERROR = "TrainerError"
    STALLED = "Stalled"
    PEER_LOST = "PeerLost"
    """Only the connection to another rank broke: an echo; the cause is told by that rank's own pod."""
    SUPERSEDED = "Superseded"
    """A newer attempt has raised the fence; this one may commit nothing any more."""
    IMAGE_PULL = "ImagePullFailed"
    STORAGE_FULL = "StorageFull"
    NO_COMPLETION_RECORD = "NoCompletionRecord"
    # Why a job ended Failed: trying again cannot help …
    CONFIG_INVALID = "ConfigInvalid"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_INVALID = "ModelInvalid"
    MODEL_UNSAFE = "ModelUnsafe"
    DIGEST_MISMATCH = "DigestMismatch"
    PAIR_MISMATCH = "PairMismatch"
    DATASET_INVALID = "DatasetInvalid"
    STORAGE_READ_ONLY = "StorageReadOnly"
    CHECKPOINT_UNREADABLE = "CheckpointUnreadable"
    CHECKPOINT_FORMAT_UNKNOWN = "CheckpointFormatUnknown"
    """The newest checkpoint is of another format, such as a newer trainer's; it is left as it is."""
    NO_ACCELERATOR = "NoAccelerator"
    POD_REJECTED = "PodRejected"
    # … or has been tried often enough.
    FAILURE_BUDGET_EXCEEDED = "FailureBudgetExceeded"
    PREEMPTION_BUDGET_EXCEEDED = "PreemptionBudgetExceeded"
    NO_PROGRESS = "NoProgress"
    DEADLINE_EXCEEDED = "DeadlineExceeded"


DISRUPTIONS: Final = frozenset(
    {
        Reason.PREEMPTED,
        Reason.EVICTED,
        Reason.NODE_LOST,
        Reason.POD_DELETED,
        Reason.DISRUPTED,
        Reason.STOPPED,
    }
)
"""Ends of an attempt that are not the trainer's doing: charged to preemptions, never to failures."""

UNCHARGED: Final = frozenset({Reason.SCHEDULING_TIMEOUT, Reason.SUSPENDED_BY_USER, Reason.GROWING})
"""Ends of an attempt that the operator or the user asked for: charged to no budget."""

PERMANENT: Final = frozenset(
    {
        Reason.CONFIG_INVALID,
        Reason.MODEL_NOT_FOUND,
        Reason.MODEL_INVALID,
        Reason.MODEL_UNSAFE,
        Reason.DIGEST_MISMATCH,
        Reason.PAIR_MISMATCH,
        Reason.DATASET_INVALID,
        Reason.STORAGE_READ_ONLY,
        Reason.STORAGE_FULL,
        Reason.CHECKPOINT_UNREADABLE,
        Reason.CHECKPOINT_FORMAT_UNKNOWN,
        Reason.NO_ACCELERATOR,
        Reason.POD_REJECTED,
    }
)
"""Reasons that end a job at once: the same attempt again would end the same way."""
