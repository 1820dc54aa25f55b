"""Every reason of conditions, events, ends of attempts and termination messages, and what it means for a job.

This is the one table: budgets, retries, event types and docs/reasons.md follow from it. A new reason is one row.
"""

from distill_api.reason_facts import (
    Blame,
    Place,
    ReasonWord,
    Wait,
    completion,
    correctable,
    deadline,
    disruption,
    failure,
    ignored_failure,
    limit,
    news,
    permanent,
    taken_back,
    unstartable,
    waiting,
    withdrawal,
)


class Reason(ReasonWord):
    """Machine-readable reasons, each with its facts: the word, what happened, and what the user can do."""

    # fmt: off

    CLAIM_NOT_FOUND = waiting(
        "ClaimNotFound", "A PersistentVolumeClaim that spec.volumes names does not exist in the job's namespace.",
        "Create the claim soon: after 60 s (the operator's CLAIM_WAIT_SECONDS) a job that has committed nothing is"
        " Failed. If the name is wrong, create the job again with another claimName or a claimTemplate. A claim that"
        " somebody deleted must get its old volume again (volumeName), or its files are lost.",
        Place.VALIDATED, Place.FAILED, Place.EVENT, wait=Wait.LIMITED, warning=True)
    CLAIM_NOT_BOUND = waiting(
        "ClaimNotBound", "A claim of the job has lost its volume (its phase is Lost).",
        "Bind the claim to a volume soon: after 60 s (the operator's CLAIM_WAIT_SECONDS) a job that has committed"
        " nothing is Failed. Or create the job again with another claim.",
        Place.VALIDATED, Place.FAILED, Place.EVENT, wait=Wait.LIMITED, warning=True)
    NAME_TAKEN = waiting(
        "NameTaken", "An object with a name that the job needs belongs to something else, or is being deleted.",
        "Delete the object that the message names, or create the job again under another name.",
        Place.EVENT, wait=Wait.UNLIMITED, warning=True)
    QUOTA_EXCEEDED = waiting(
        "QuotaExceeded", "A ResourceQuota of the namespace is used up, so the attempt's Job or pods cannot be created.",
        "Wait for other workloads to finish, or raise the quota.", Place.EVENT, wait=Wait.UNLIMITED, warning=True)
    NOT_ADMITTED = waiting(
        "NotAdmitted",
        "The API server or an admission webhook refuses an object of the job, for a reason that may pass: a policy, a"
        " limit of the namespace, a webhook that is not available, a PriorityClass that does not exist, a"
        " permission that the operator lacks.",
        "The message has the text of the refusal: create or correct what it names, change the policy, or change"
        " spec.template or spec.scheduling.", Place.EVENT, wait=Wait.UNLIMITED, warning=True)
    CHECKPOINT_FORMAT_UNKNOWN = correctable(
        "CheckpointFormatUnknown",
        "The newest checkpoint has a format that this trainer does not know, such as a newer trainer's."
        " Nothing on the volume was changed.",
        "Set spec.image to a trainer at least as new as the one that wrote the checkpoint; the job then resumes.",
        Place.TERMINATION)
    CHECKPOINT_MISMATCH = correctable(
        "CheckpointMismatch",
        "The newest checkpoint was written with other values of fields that give it its meaning, such as the student.",
        "Set spec.suspend, change back what the message names, and resume; or create a new job for the new values.",
        Place.TERMINATION)
    CHECKPOINTS_LOST = correctable(
        "CheckpointsLost",
        "The job has committed checkpoints, but its claim from a claimTemplate, or everything in its directory, is"
        " gone. A job never begins again silently.",
        "Restore the claim or the directory from a backup; after restoring the directory, set spec.suspend to true and"
        " back to false. To begin again, delete the job and create it anew.", Place.TERMINATION)
    TRAINER_TOO_OLD = correctable(
        "TrainerTooOld", "The job uses a field that its trainer image, older than the operator, does not know.",
        "Set spec.image to a newer trainer, or remove it for the operator's own; the job then goes on.",
        Place.TERMINATION)
    NOT_UNDERSTOOD = waiting(
        "NotUnderstood",
        "This version of the operator does not know a field that the job sets, or cannot read a value of it: most often"
        " the CRD is newer than the operator. Running pods go on, but nothing is started or restarted.",
        "Upgrade the operator to the CRD's version, or correct the field that the message names.",
        Place.VALIDATED, Place.EVENT, wait=Wait.UNLIMITED, warning=True)
    TEMPLATE_REFUSED = correctable(
        "TemplateRefused",
        "spec.template has something that no pod may have. The job was stored before the API server refused it.",
        "Correct spec.template as the message says; the job then goes on.")
    UNSCHEDULABLE = waiting(
        "Unschedulable",
        "The scheduler finds no node for some of the attempt's pods; the message has the scheduler's explanation.",
        "Free or add nodes, or change spec.scheduling: kubectl get nodes shows which are cordoned or not ready, and"
        " distill top who has the accelerators. With spec.elastic the job runs on fewer nodes meanwhile.")
    PODS_STARTING = waiting(
        "PodsStarting", "The attempt's pods wait in a queue, are being created, or have not finished their first step.",
        "Nothing. If it takes long, kubectl describe pod shows what a pod waits for, and rank 0's log what it does.")
    BACKING_OFF = waiting(
        "BackingOff", "The last attempt committed nothing new, so the next one starts only at status.nextAttemptAt.",
        "Find out why the last attempt ended: its reason and message are in status.attempts. If attempts are preempted"
        " before they commit, lower spec.checkpoint.intervalSeconds or use a higher PriorityClass.")
    PODS_TERMINATING = waiting(
        "PodsTerminating", "Pods of an ended attempt, or of an earlier job of this name, are still terminating.",
        "Nothing. Pods that outlast their grace period are reported as NodeLost.", Place.SUSPENDED, Place.EVENT)

    ACCEPTED = news(
        "Accepted", "All is well: the job is valid, is not suspended, or runs on all its nodes.",
        "Nothing.", Place.VALIDATED, Place.SUSPENDED, Place.DEGRADED)
    ATTEMPT_CREATED = news("AttemptCreated", "The operator starts an attempt.", "Nothing.", Place.EVENT)
    TRAINING = news(
        "Training", "The attempt has finished its first step and is training.", "Nothing.", Place.RUNNING, Place.EVENT)
    RESUMED = news(
        "Resumed", "The attempt resumed from a checkpoint; the message says how many steps are repeated.",
        "Nothing. To repeat fewer steps after a crash, lower spec.checkpoint.intervalSeconds.", Place.EVENT)
    EXECUTION_CHANGED = news(
        "ExecutionChanged",
        "Others took the place of the attempt's pods while the operator did not watch, as when it is down and a queue"
        " suspends and resumes the Job. Nothing is charged; only the later pods can commit.",
        "Nothing. If something other than a queue suspends or copies Jobs, stop it.", Place.EVENT, warning=True)
    VERSIONS_CHANGED = news(
        "VersionsChanged",
        "The attempt resumed with other versions of PyTorch, Ultralytics or the trainer than wrote its checkpoint.",
        "Nothing, unless the run must be bitwise reproducible: then keep spec.image unchanged for the whole job.",
        Place.EVENT, warning=True)
    SPEC_CHANGED = news(
        "SpecChanged",
        "The attempt resumed with other values of fields in spec.training than its checkpoint was written with.",
        "Nothing, if you have changed them: the new values hold from the next step on.", Place.EVENT)
    FEWER_NODES = news(
        "FewerNodes", "An elastic job runs on fewer nodes than it asks for.",
        "Nothing. The operator asks for more nodes at the time in the message, and grows the job when it gets them.",
        Place.DEGRADED)
    NODE_AVOIDED = news(
        "NodeAvoided",
        "An attempt ended on a node for a cause that is the machine's, or for the second time for one that may be, so"
        " the next attempts do not use it for spec.recovery.avoidNodeSeconds (status.avoidedNodes).",
        "Check the node's devices, driver and kernel log. If it is well, set spec.recovery.avoidNodeSeconds to 0. If"
        " the job lacks nodes without it, the operator gives it back to the job by itself.", Place.EVENT, warning=True)
    COMPLETED = completion(
        "Completed", "The training is finished. The message and status.result name the student's weights.", "Nothing.")
    CHECKED = completion(
        "Checked", "Volumes, models and data set were checked (spec.checkOnly): nothing is wrong, nothing was trained.",
        "Nothing. To train, create a job without spec.checkOnly.")
    SUSPENDED_BY_USER = withdrawal(
        "SuspendedByUser", "spec.suspend is true, so the attempt commits a checkpoint and stops.",
        "Set spec.suspend to false to resume.", Place.SUSPENDED, keeps_phase=True)
    SCHEDULING_TIMEOUT = withdrawal(
        "SchedulingTimeout",
        "Some pods were not scheduled or not started within spec.recovery.schedulingTimeoutSeconds of the attempt's"
        " admission, so its nodes are given back. The operator tries again after 5 to 30 seconds.",
        "Free or add nodes, raise the timeout, or set spec.elastic. The message says what the pods waited for.",
        warning=True)
    QUEUE_EVICTED = taken_back(
        "QueueEvicted",
        "A queue, such as Kueue, suspended the attempt's Job after it had admitted it, to give the nodes to others.",
        "Nothing: the job keeps its place in the queue, and resumes when it is admitted again.")
    GROWING = withdrawal(
        "Growing", "There is room for more nodes, so the attempt commits and is replaced by a larger one.", "Nothing.")
    SCALED_DOWN = withdrawal(
        "ScaledDown", "spec.nodes was lowered, so the attempt commits and is replaced by a smaller one.", "Nothing.")

    PREEMPTED = disruption(
        "Preempted", "The scheduler preempted a pod of the attempt to make room for pods of higher priority.",
        "Nothing: the job resumes. If it happens too often, use a higher PriorityClass (spec.scheduling).")
    EVICTED = disruption(
        "Evicted",
        "A pod of the attempt was evicted or refused by its node: a drain, node pressure, a kubelet shutting down.",
        "Nothing: the job resumes. Under node pressure, set requests and limits in spec.resources.")
    NODE_LOST = disruption(
        "NodeLost", "A node of the attempt was deleted, is unreachable, or did not confirm the end of a pod in time"
        " (spec.recovery.nodeLostTimeoutSeconds after the pod's grace period).",
        "Nothing: the job resumes on other nodes. If a node is known to be off, delete its Node to end the wait.",
        blames_node=Blame.REPEATED)
    POD_DELETED = disruption(
        "PodDeleted", "Something other than the operator deleted a pod or the Job of the attempt.",
        "Nothing: the job resumes. To stop a job, set spec.suspend or delete the DistillJob.")
    DISRUPTED = disruption(
        "Disrupted", "A pod was disrupted while the operator was not running, so the kind of disruption is unknown.",
        "Nothing: the job resumes.")
    SUPERSEDED = disruption(
        "Superseded",
        "A newer attempt, or a later start of this one, has begun to commit: the pod commits nothing more and ends.",
        "Nothing: the job resumes. If it happens again, see whether something else starts copies of the pods.",
        Place.TERMINATION)
    STOPPED = disruption(
        "Stopped", "The trainer committed and stopped because it received SIGTERM, and it is not known who sent it.",
        "Nothing: the job resumes. The node's events and the kubelet's log may show who stopped the container.",
        Place.TERMINATION, echo=True)

    OUT_OF_MEMORY = failure(
        "OutOfMemory", "A container exceeded its memory limit, or an accelerator had too little memory.",
        "Raise the memory limit (spec.resources), or create a job with a lower training.batch, imgsz or workers.",
        Place.TERMINATION)
    ACCELERATOR_FAILED = failure(
        "AcceleratorFailed",
        "A CUDA device reported an error that comes from the device, its driver or its node more often than from the"
        " program: an uncorrectable ECC or NVLink error, a lost device, an unspecified launch failure.",
        "Nothing at first: the next attempts avoid the node (status.avoidedNodes). Check the device with nvidia-smi and"
        " the node's kernel log (Xid). On several nodes in turn it is more likely the program or the driver.",
        Place.TERMINATION, blames_node=Blame.ONCE)
    PROCESS_KILLED = failure(
        "ProcessKilled", "A process of the trainer was killed (SIGKILL).",
        "Look at pod events and the node's kernel log: most often memory was short.",
        Place.TERMINATION, blames_node=Blame.REPEATED)
    TRAINER_ERROR = failure(
        "TrainerError", "Training failed with an unexpected error, or a container ended without a report.",
        "The message has the error, and the pod's log its traceback.", Place.TERMINATION)
    INIT_CONTAINER = failure(
        "InitContainerFailed", "An init container of a pod failed, so the trainer did not start.",
        "See its log (kubectl logs POD -c CONTAINER; the message has both names), and correct it in spec.template.")
    STALLED = failure(
        "Stalled", "The attempt made no progress for too long (spec.recovery.stallTimeoutSeconds).",
        "The message names rank and phase, and the pods' logs have the stacks of all threads. Check the storage and the"
        " network, or raise the timeout.",
        Place.TERMINATION, lost_node_explains=True, ended_by_operator=True, blames_node=Blame.REPEATED)
    PEER_LOST = failure(
        "PeerLost", "A rank lost its connection to another one, and no pod shows why.",
        "Check the network between the nodes, NetworkPolicies, and the logs of all pods.",
        Place.TERMINATION, echo=True, lost_node_explains=True)
    IMAGE_PULL = unstartable(
        "ImagePullFailed", "An image of the pods, or of an image volume, cannot be pulled.",
        "Correct spec.image, the image in spec.volumes or the image in spec.template, or add spec.imagePullSecrets.")
    POD_CANNOT_START = unstartable(
        "PodCannotStart",
        "A pod has a node but its containers cannot start: a Secret or ConfigMap that does not exist, a volume that"
        " cannot be mounted, a command that is not in the image.",
        "Create or correct what the message names; the attempt goes on if it still waits, else the next one starts.",
        blames_node=Blame.ONCE)
    NO_COMPLETION_RECORD = failure(
        "NoCompletionRecord",
        "All pods ended with exit code 0, but rank 0 left no completion record, so the job is not complete.",
        "Look at rank 0's log; an image that overrides the trainer's command ends like this.")

    IGNORED_EXIT_CODE = ignored_failure(
        "IgnoredExitCode",
        "The training container ended with an exit code for which spec.recovery.exitCodes says Ignore.",
        "Nothing: the job resumes, as often as spec.recovery.maxRestartsWithoutProgress allows.")

    CONFIG_INVALID = permanent(
        "ConfigInvalid", "The job's specification cannot work as it is.",
        "Change what the message names and create the job again.", Place.TERMINATION)
    MODEL_NOT_FOUND = permanent(
        "ModelNotFound", "A model that the job names is not on its volume. Models are never downloaded.",
        "Copy the file to the volume, or correct the path, and create the job again.", Place.TERMINATION)
    MODEL_INVALID = permanent(
        "ModelInvalid", "A model file is damaged, or is not a model that can be trained or distilled.",
        "Copy the file again, or use another model, and create the job again.", Place.TERMINATION)
    MODEL_UNSAFE = permanent(
        "ModelUnsafe",
        "Loading a .pt file would import classes that are not Ultralytics' or torch's, and could run any code.",
        "If you trust the file, set trustPickle for that model and create the job again.", Place.TERMINATION)
    DIGEST_MISMATCH = permanent(
        "DigestMismatch", "The teacher's file does not have the digest in spec.teacher.sha256.",
        "Use the intended file, or correct the digest, and create the job again.", Place.TERMINATION)
    PAIR_MISMATCH = permanent(
        "PairMismatch",
        "Student and teacher, or the baseline of the report, do not fit together: task, classes, strides, channels.",
        "Use models of one task and data set, with the same class names in the same order, and create the job again.",
        Place.TERMINATION)
    DATASET_INVALID = permanent(
        "DatasetInvalid", "The data set cannot be read or has invalid labels; the message names file and line.",
        "Correct the data set and create the job again.", Place.TERMINATION)
    STORAGE_FULL = permanent(
        "StorageFull", "The checkpoints volume is full. What was committed before is intact.",
        "Enlarge the volume, delete old runs, or lower spec.checkpoint.keep, and create the job again.",
        Place.TERMINATION)
    STORAGE_READ_ONLY = permanent(
        "StorageReadOnly", "The trainer may not write to the checkpoints volume.",
        "Make the volume writable for user and group 65532 (fsGroup), or check why it was remounted read-only.",
        Place.TERMINATION)
    CHECKPOINT_UNREADABLE = permanent(
        "CheckpointUnreadable",
        "The job's directory has checkpoints, but none is readable, or they belong to another job.",
        "Restore a checkpoint from a backup, or delete the directory to start from zero, or give the job another name;"
        " then create it again.", Place.TERMINATION)
    NO_ACCELERATOR = permanent(
        "NoAccelerator", "The job trains on CUDA, but a container has fewer CUDA devices than processes.",
        "Check spec.accelerators and the node's driver and device plugin, or set spec.device to cpu.",
        Place.TERMINATION)
    FAIL_JOB_EXIT_CODE = permanent(
        "FailJobExitCode",
        "The training container ended with an exit code for which spec.recovery.exitCodes says FailJob.",
        "Look at the pod's log for what the code means, correct it, and create the job again.")
    POD_REJECTED = permanent(
        "PodRejected",
        "The API server refuses the attempt's Job or pods as invalid, as too large, or as violating the Pod Security"
        " Standard. Whatever else refuses them is waited for (NotAdmitted).",
        "Correct spec.template as the message says, and create the job again.", ended_by_operator=True)

    FAILURE_BUDGET_EXCEEDED = limit(
        "FailureBudgetExceeded", "More attempts failed than spec.recovery.maxFailures allows.",
        "Fix the causes of the last failures (status.attempts), and create the job again.")
    PREEMPTION_BUDGET_EXCEEDED = limit(
        "PreemptionBudgetExceeded", "More attempts were disrupted than spec.recovery.maxPreemptions allows.",
        "Use a higher PriorityClass or quieter nodes, or leave maxPreemptions unset, and create the job again.")
    NO_PROGRESS = limit(
        "NoProgress",
        "More failures in a row than spec.recovery.maxRestartsWithoutProgress allows committed no new step.",
        "Fix what ended the last attempts, or lower spec.checkpoint.intervalSeconds so that they commit earlier.")
    DEADLINE_EXCEEDED = deadline(
        "DeadlineExceeded", "The job was active for spec.activeDeadlineSeconds and is not finished.",
        "Create the job again with a longer deadline or fewer epochs. What was committed stays on the volume.")
