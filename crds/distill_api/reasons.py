"""Every reason of conditions, events, ends of attempts and termination messages, and what it means for a job.

This is the one table: budgets, retries, event types and docs/reasons.md follow from it. A new reason is one row.
"""

from enum import StrEnum
from typing import Self

from distill_api.reason_facts import (
    Place,
    ReasonFacts,
    Wait,
    completion,
    correctable,
    deadline,
    disruption,
    failure,
    limit,
    news,
    permanent,
    waiting,
    withdrawal,
)


class Reason(StrEnum):
    """Machine-readable reasons, each with its facts: the word, what happened, and what the user can do."""

    facts: ReasonFacts

    def __new__(cls, facts: ReasonFacts) -> Self:
        member = str.__new__(cls, facts.word)
        member._value_ = facts.word
        member.facts = facts
        return member

    # fmt: off

    CLAIM_NOT_FOUND = waiting(
        "ClaimNotFound",
        "A PersistentVolumeClaim that spec.volumes names does not exist in the job's namespace.",
        "Create the claim within CLAIM_WAIT_SECONDS (60 s), after which the job is Failed. If the name is wrong,"
        " create the job again with another claimName or a claimTemplate.",
        Place.VALIDATED, Place.FAILED, Place.EVENT, wait=Wait.LIMITED, warning=True)
    CLAIM_NOT_BOUND = waiting(
        "ClaimNotBound",
        "A claim of the job has lost its volume (its phase is Lost).",
        "Bind the claim to a volume within CLAIM_WAIT_SECONDS (60 s), or create the job again with another claim.",
        Place.VALIDATED, Place.FAILED, Place.EVENT, wait=Wait.LIMITED, warning=True)
    NAME_TAKEN = waiting(
        "NameTaken",
        "An object with a name that the job needs belongs to something else, or a claim of the job is being deleted.",
        "Delete the object that the message names, or create the job again under another name.",
        Place.EVENT, wait=Wait.UNLIMITED, warning=True)
    QUOTA_EXCEEDED = waiting(
        "QuotaExceeded",
        "A ResourceQuota of the namespace is used up, so the attempt's Job or pods cannot be created.",
        "Wait for other workloads to finish, or raise the quota.",
        Place.EVENT, wait=Wait.UNLIMITED, warning=True)
    NOT_ADMITTED = waiting(
        "NotAdmitted",
        "The API server or an admission webhook refuses an object of the job, for a reason that may pass: a policy, a"
        " limit of the namespace, a webhook that is not available, a PriorityClass that does not exist.",
        "The message has the text of the refusal: create or correct what it names, change the policy, or change"
        " spec.template or spec.scheduling.",
        Place.EVENT, wait=Wait.UNLIMITED, warning=True)
    CHECKPOINT_FORMAT_UNKNOWN = correctable(
        "CheckpointFormatUnknown",
        "The newest checkpoint has a format that this trainer does not know, such as a newer trainer's."
        " Nothing on the volume was changed.",
        "Set spec.image to a trainer at least as new as the one that wrote the checkpoint; the job then resumes.",
        Place.TERMINATION)
    UNSCHEDULABLE = waiting(
        "Unschedulable",
        "The scheduler finds no node for some of the attempt's pods; the message has the scheduler's explanation.",
        "Free or add nodes, or change spec.scheduling. With spec.elastic the job runs on fewer nodes meanwhile.")
    PODS_STARTING = waiting(
        "PodsStarting",
        "The attempt's pods wait in a queue, are being created, or have not finished their first step.",
        "Nothing. If it takes long, kubectl describe pod shows what a pod waits for, and rank 0's log what it does.")
    BACKING_OFF = waiting(
        "BackingOff",
        "The last attempt committed nothing new, so the next one starts only at status.nextAttemptAt.",
        "Find out why the last attempt ended: its reason and message are in status.attempts.")
    PODS_TERMINATING = waiting(
        "PodsTerminating",
        "Pods of an ended attempt, or of an earlier job of this name, are still terminating.",
        "Nothing. Pods that outlast their grace period are reported as NodeLost.",
        Place.SUSPENDED, Place.EVENT)

    ACCEPTED = news(
        "Accepted",
        "All is well: the job is valid, is not suspended, or runs on all its nodes.",
        "Nothing.",
        Place.VALIDATED, Place.SUSPENDED, Place.DEGRADED)
    ATTEMPT_CREATED = news(
        "AttemptCreated",
        "The operator starts an attempt.",
        "Nothing.",
        Place.EVENT)
    TRAINING = news(
        "Training",
        "The attempt has finished its first step and is training.",
        "Nothing.",
        Place.RUNNING, Place.EVENT)
    RESUMED = news(
        "Resumed",
        "The attempt resumed from a checkpoint; the message says how many steps are repeated.",
        "Nothing. To repeat fewer steps after a crash, lower spec.checkpoint.intervalSeconds.",
        Place.EVENT)
    VERSIONS_CHANGED = news(
        "VersionsChanged",
        "The attempt resumed with other versions of PyTorch, Ultralytics or the trainer than wrote its checkpoint.",
        "Nothing, unless the run must be bitwise reproducible: then keep spec.image unchanged for the whole job.",
        Place.EVENT, warning=True)
    FEWER_NODES = news(
        "FewerNodes",
        "An elastic job runs on fewer nodes than it asks for.",
        "Nothing. The operator asks for more nodes at the time in the message, and grows the job when it gets them.",
        Place.DEGRADED)
    COMPLETED = completion(
        "Completed",
        "The training is finished. The message and status.result name the student's weights.",
        "Nothing.")
    SUSPENDED_BY_USER = withdrawal(
        "SuspendedByUser",
        "spec.suspend is true, so the attempt commits a checkpoint and stops.",
        "Set spec.suspend to false to resume.",
        Place.SUSPENDED, keeps_phase=True)
    SCHEDULING_TIMEOUT = withdrawal(
        "SchedulingTimeout",
        "Some pods were not scheduled or not started within spec.recovery.schedulingTimeoutSeconds of the attempt's"
        " admission, so its nodes are given back. The operator tries again after 5 to 30 seconds.",
        "Free or add nodes, raise the timeout, or set spec.elastic. The message says what the pods waited for.",
        warning=True)
    GROWING = withdrawal(
        "Growing",
        "There is room for more nodes, so the attempt commits and is replaced by a larger one.",
        "Nothing.")

    PREEMPTED = disruption(
        "Preempted",
        "The scheduler preempted a pod of the attempt to make room for pods of higher priority.",
        "Nothing: the job resumes. If it happens too often, use a higher PriorityClass (spec.scheduling).")
    EVICTED = disruption(
        "Evicted",
        "A pod of the attempt was evicted or refused by its node: a drain, node pressure, a kubelet shutting down.",
        "Nothing: the job resumes. Under node pressure, set requests and limits of the container in spec.template.")
    NODE_LOST = disruption(
        "NodeLost",
        "A node of the attempt was deleted, is unreachable, or did not confirm the end of a pod in time"
        " (spec.recovery.nodeLostTimeoutSeconds after the pod's grace period).",
        "Nothing: the job resumes on other nodes. If a node is known to be off, delete its Node to end the wait.")
    POD_DELETED = disruption(
        "PodDeleted",
        "Something other than the operator deleted a pod or the Job of the attempt.",
        "Nothing: the job resumes. To stop a job, set spec.suspend or delete the DistillJob.")
    DISRUPTED = disruption(
        "Disrupted",
        "A pod was disrupted while the operator was not running, so the kind of disruption is unknown.",
        "Nothing: the job resumes.")
    STOPPED = disruption(
        "Stopped",
        "The trainer committed and stopped because it received SIGTERM, and it is not known who sent it.",
        "Nothing: the job resumes. The node's events and the kubelet's log may show who stopped the container.",
        Place.TERMINATION, echo=True)

    OUT_OF_MEMORY = failure(
        "OutOfMemory",
        "A container exceeded its memory limit, or an accelerator had too little memory.",
        "Raise the memory limit (spec.template), or create a job with a lower training.batch, imgsz or workers.",
        Place.TERMINATION)
    PROCESS_KILLED = failure(
        "ProcessKilled",
        "A process of the trainer was killed (SIGKILL).",
        "Look at the pod's events and the node's kernel log: most often memory or /dev/shm was short.",
        Place.TERMINATION)
    TRAINER_ERROR = failure(
        "TrainerError",
        "Training failed with an unexpected error, or a container ended without a report.",
        "The message has the error, and the pod's log its traceback.",
        Place.TERMINATION)
    STALLED = failure(
        "Stalled",
        "The attempt made no progress for too long (spec.recovery.stallTimeoutSeconds).",
        "The message names rank and phase, and the pods' logs have the stacks of all threads. Check the storage and the"
        " network, or raise the timeout.",
        Place.TERMINATION, lost_node_explains=True, ended_by_operator=True)
    PEER_LOST = failure(
        "PeerLost",
        "A rank lost its connection to another one, and no pod shows why.",
        "Check the network between the nodes, NetworkPolicies, and the logs of all pods.",
        Place.TERMINATION, echo=True, lost_node_explains=True)
    SUPERSEDED = failure(
        "Superseded",
        "The pod belongs to an attempt that a newer one has replaced; it commits nothing and ends.",
        "Nothing. On a healthy cluster it does not happen: see whether something else starts copies of the pods.",
        Place.TERMINATION)
    IMAGE_PULL = failure(
        "ImagePullFailed",
        "An image of the pods cannot be pulled.",
        "Correct spec.image or the image in spec.template, or add imagePullSecrets there.",
        ended_by_operator=True)
    NO_COMPLETION_RECORD = failure(
        "NoCompletionRecord",
        "All pods ended with exit code 0, but rank 0 left no completion record, so the job is not complete.",
        "Look at rank 0's log; an image that overrides the trainer's command ends like this.")

    CONFIG_INVALID = permanent(
        "ConfigInvalid",
        "The job's specification cannot work as it is.",
        "Change what the message names and create the job again.",
        Place.TERMINATION)
    MODEL_NOT_FOUND = permanent(
        "ModelNotFound",
        "A model that the job names is not on its volume. Models are never downloaded.",
        "Copy the file to the volume, or correct the path, and create the job again.",
        Place.TERMINATION)
    MODEL_INVALID = permanent(
        "ModelInvalid",
        "A model file is damaged, or is not a model that can be trained or distilled.",
        "Copy the file again, or use another model, and create the job again.",
        Place.TERMINATION)
    MODEL_UNSAFE = permanent(
        "ModelUnsafe",
        "Loading a .pt file would import classes that are not Ultralytics' or torch's, and could run any code.",
        "If you trust the file, set trustPickle for that model and create the job again.",
        Place.TERMINATION)
    DIGEST_MISMATCH = permanent(
        "DigestMismatch",
        "The teacher's file does not have the digest in spec.teacher.sha256.",
        "Use the intended file, or correct the digest, and create the job again.",
        Place.TERMINATION)
    PAIR_MISMATCH = permanent(
        "PairMismatch",
        "Student and teacher, or the baseline of the report, do not fit together: task, classes, strides, channels.",
        "Use models of one task and data set, and create the job again.",
        Place.TERMINATION)
    DATASET_INVALID = permanent(
        "DatasetInvalid",
        "The data set cannot be read or has invalid labels; the message names file and line.",
        "Correct the data set and create the job again.",
        Place.TERMINATION)
    STORAGE_FULL = permanent(
        "StorageFull",
        "The checkpoints volume is full. What was committed before is intact.",
        "Enlarge the volume, delete old runs, or lower spec.checkpoint.keep, and create the job again.",
        Place.TERMINATION)
    STORAGE_READ_ONLY = permanent(
        "StorageReadOnly",
        "The trainer may not write to the checkpoints volume.",
        "Make the volume writable for user and group 65532 (fsGroup), or check why it was remounted read-only.",
        Place.TERMINATION)
    CHECKPOINT_UNREADABLE = permanent(
        "CheckpointUnreadable",
        "The job's directory has checkpoints, but none is readable, or they belong to another job.",
        "Restore a checkpoint from a backup, or delete the directory to start from zero, or give the job another name;"
        " then create it again.",
        Place.TERMINATION)
    NO_ACCELERATOR = permanent(
        "NoAccelerator",
        "The job trains on CUDA, but a container has fewer CUDA devices than processes.",
        "Check spec.accelerators and the node's driver and device plugin, or set spec.device to cpu.",
        Place.TERMINATION)
    POD_REJECTED = permanent(
        "PodRejected",
        "The API server refuses the attempt's Job or pods as invalid or as violating the Pod Security Standard.",
        "Correct spec.template as the message says, and create the job again.",
        ended_by_operator=True)

    FAILURE_BUDGET_EXCEEDED = limit(
        "FailureBudgetExceeded",
        "More attempts failed than spec.recovery.maxFailures allows.",
        "Fix the causes of the last failures (status.attempts), and create the job again.")
    PREEMPTION_BUDGET_EXCEEDED = limit(
        "PreemptionBudgetExceeded",
        "More attempts were disrupted than spec.recovery.maxPreemptions allows.",
        "Use a higher PriorityClass or quieter nodes, or leave maxPreemptions unset, and create the job again.")
    NO_PROGRESS = limit(
        "NoProgress",
        "More restarts in a row than spec.recovery.maxRestartsWithoutProgress allows committed no new step.",
        "Fix what ended the last attempts, or lower spec.checkpoint.intervalSeconds so that they commit earlier.")
    DEADLINE_EXCEEDED = deadline(
        "DeadlineExceeded",
        "The job did not finish within spec.activeDeadlineSeconds of its first attempt.",
        "Create the job again with a longer deadline or fewer epochs. What was committed stays on the volume.")
