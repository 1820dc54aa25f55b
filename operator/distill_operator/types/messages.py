"""Every sentence that the operator writes into conditions, attempts and events.

docs/reasons.md has the cause and the remedy of each reason; a message adds the details: pod, node, claim, limit.
"""

from collections.abc import Mapping
from typing import Final

from distill_api.reasons import Reason

ACCEPTED: Final = "the specification and its claims are valid"
CLAIM_NOT_FOUND: Final = (
    'claim "{claim}" of spec.volumes.{volume} does not exist in namespace {namespace}; create it, or use a '
    "claimTemplate"
)
CLAIM_LOST: Final = 'claim "{claim}" of spec.volumes.{volume} has lost its volume; bind it again or create a new one'
CLAIM_DELETING: Final = (
    'claim "{claim}" of spec.volumes.{volume} is being deleted; the job waits until it is gone '
    "(kubectl describe pvc {claim} lists the pods that use it)"
)
CLAIM_TAKEN: Final = (
    'claim "{claim}" for spec.volumes.{volume}.claimTemplate already exists and does not belong to this job; the job '
    "waits until the claim is gone; delete it, or use it with claimName"
)
CHECKPOINTS_CLAIM_LOST: Final = (
    'claim "{claim}" is gone, and with it the checkpoints up to step {step}; the job does not begin again. Restore the '
    'claim under this name with the label {label}: "{uid}", or delete the job to begin again'
)
CLAIM_ONE_NODE: Final = (
    'spec.nodes is {nodes} but claim "{claim}" of spec.volumes.{volume} is {modes}; use a {wanted} claim or nodes: 1'
)
UNREADABLE: Final = (
    "this version of the operator cannot read the job; upgrade the operator, or correct the field: {errors}"
)
FIELDS_UNKNOWN: Final = (
    "this version of the operator does not know {fields}; the job waits for a newer operator, or until they are removed"
)
TEMPLATE_REFUSED: Final = "no pod is created from spec.template; the job waits until it is corrected: {refusals}"

REFUSED_FOR_NOW: Final[Mapping[Reason, str]] = {
    Reason.NAME_TAKEN: (
        "{what} already exists and is not this job's, or is being deleted; the job waits until it is gone: {message}"
    ),
    Reason.QUOTA_EXCEEDED: "{what}: a quota is used up; the job waits: {message}",
    Reason.NOT_ADMITTED: (
        "{what}: creation is refused for now; the job waits, and withdraws the attempt after "
        "spec.recovery.schedulingTimeoutSeconds to try again: {message}"
    ),
}
"""By the reason of a refusal that may pass."""
NO_PRIORITY_CLASS: Final = (
    "{what}: the PriorityClass in spec.scheduling.priorityClassName does not exist; create it, or change the "
    "priorityClassName: {message}"
)
REJECTED: Final = "{what} is rejected: {message}"

PODS_STARTING: Final = "attempt {attempt}: {running} of {nodes} pods are running; waiting for the first step"
UNSCHEDULABLE: Final = "attempt {attempt}: {waiting} of {nodes} pods cannot be scheduled: {message}"
NOT_STARTING: Final = "attempt {attempt}: pod {pod} cannot start: {why}"
LET_GO: Final = "; the attempt is withdrawn at {at} unless this is repaired"
QUEUE_EVICTED: Final = "the queue suspended Job {job} again; the job keeps its place and resumes when it is admitted"
QUEUED: Final = "attempt {attempt}: its Job is suspended by a queue"
TRAINING: Final = "attempt {attempt} is training"
PODS_TERMINATING: Final = "attempt {attempt} ended ({reason}: {message}); {live} of its pods are still terminating"
LATE_JOBS: Final = "a Job that was created late, or that somebody deletes, is being deleted: {jobs}"
LEFTOVER_PODS: Final = "pods of an earlier attempt or job have not ended yet: {pods}"
BACKING_OFF: Final = "attempt {attempt} ended ({reason}); the next one starts at {at}"
NOTHING_COMMITTED: Final = "; {count} attempts in a row committed no new step"
ATTEMPT_CREATED: Final = "attempt {attempt} with {nodes} nodes"
RESUMED: Final = "attempt {attempt} resumed from step {step}; {lost} steps are repeated"
EXECUTION_CHANGED: Final = (
    "the pods of attempt {attempt} ended and were started again, which the operator did not see: execution {before} "
    "was followed by execution {now}. Nothing is charged; the newest committed step is {step}"
)
VERSIONS_CHANGED: Final = (
    "attempt {attempt} resumed with other versions than its checkpoint was written with ({changes}); from now on the "
    "run may not be bitwise equal to an uninterrupted one"
)
SPEC_CHANGED: Final = "attempt {attempt} resumed with another spec than its checkpoint was written with ({changes})"
FIRST_STEP: Final = "attempt {attempt} is training on {nodes} nodes"
ATTEMPT_ENDED: Final = "attempt {attempt} ended: {message}"

SUSPENDED: Final = "spec.suspend is true; set it to false to resume"
SUSPENDING: Final = "spec.suspend is true; the pods commit a checkpoint and stop"
NOT_SUSPENDED: Final = "spec.suspend is false"
FULL_SIZE: Final = "the job runs on all its nodes"
SMALLER: Final = "nodes {nodes}/{asked}: the attempt has fewer nodes than spec.nodes asks for"
GROWS_AT: Final = "; the operator asks for the others at {at}"
NODE_AVOIDED: Final = (
    "node {node} is avoided until {at}, because attempt {attempt} ended there ({reason}); "
    "spec.recovery.avoidNodeSeconds sets how long"
)
AVOIDED: Final = "; node {node} is avoided until {at} ({reason} in attempt {attempt})"
IN_THE_WAY: Final = "; its pods must not run on {nodes}, of which the operator gives back what is missing at {at}"
GIVEN_BACK: Final = "; no longer avoided: {nodes}"
SHRINKING: Final = "; the next attempt has {nodes} nodes"
GROWING: Final = "there is room for {more} nodes instead of {nodes}; the attempt commits and a larger one replaces it"
SCALED_DOWN: Final = "spec.nodes is {nodes} and the attempt has {had}; it commits and a smaller one replaces it"
COMPLETED: Final = "the student is at {checkpoint} on the checkpoints volume"

POD_DISRUPTED: Final[Mapping[Reason, str]] = {
    Reason.PREEMPTED: "pod {pod} on node {node} was preempted: {message}",
    Reason.EVICTED: "pod {pod} was evicted from node {node}: {message}",
    Reason.NODE_LOST: "pod {pod} was removed because its node {node} is lost: {message}",
}
"""By the reason of the disruption."""
POD_GIVEN_UP: Final = (
    "node {node} did not confirm the end of pod {pod} within {seconds} s of the pod's grace period "
    "(spec.recovery.nodeLostTimeoutSeconds); the node is considered lost"
)
NODES_NOT_RESPONDING: Final = (
    "{pods} are past their grace period and their node is not responding; the next attempt starts without them at "
    "{at} (spec.recovery.nodeLostTimeoutSeconds). If the node is known to be off, delete it (kubectl delete node) to "
    "continue at once"
)
NODES_HOLD_THE_JOB: Final = (
    "{pods} are past their grace period and their node is not responding. This installation forbids forced deletion "
    "(chart value operator.forcedPodDeletion), so the next attempt waits until the cluster has removed them: bring the "
    "node back, or if it is known to be off, delete it (kubectl delete node NODE) or taint it (kubectl taint node NODE "
    "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute)"
)
DISRUPTED: Final = "a pod was disrupted while the operator was not running: {message}"
POD_REFUSED_BY_KUBELET: Final = "pod {pod} was refused by node {node}: {reason}: {message}"
POD_DELETED: Final = "pod {pod} on node {node} was deleted, but not by the operator"
PODS_DELETED: Final = "a pod was deleted while the operator was not running: {message}"
JOB_DELETED: Final = "Job {job} was deleted, but not by the operator"
OOM: Final = (
    "container {container} of pod {pod} on node {node} was killed for memory (exit code {code}); raise its memory "
    "limit, or lower training.batch, training.workers or training.imgsz"
)
OOM_BESIDE: Final = (
    "container {container} of pod {pod} on node {node} was killed for memory (exit code {code}); raise its memory limit"
)
INIT_FAILED: Final = (
    "init container {container} of pod {pod} on node {node} failed (exit code {code}), so the trainer did not start; "
    "see its log (kubectl logs {pod} -c {container})"
)
KILLED: Final = "container {container} of pod {pod} on node {node} was killed (exit code 137)"
EXITED: Final = (
    "container {container} of pod {pod} on node {node} ended with exit code {code} and without a report; see its log"
)
RULED: Final = "{message} (exit code {code}: spec.recovery.exitCodes says {action})"
REPORTED: Final = "pod {pod} on node {node}: {message}"
GANG_STALLED: Final = "the pods stopped receiving data from each other: {message}"
STOPPED: Final = "container {container} of pod {pod} on node {node} was stopped (SIGTERM)"
JOB_FAILED: Final = "Job {job} failed while the operator was not running: {message}"
NO_RECORD: Final = "all pods of attempt {attempt} ended, but rank 0 left no completion record"

SCHEDULING_TIMEOUT: Final = (
    "not all {nodes} pods could be scheduled within {seconds:.0f} s; the attempt is withdrawn: {message}"
)
CANNOT_START: Final = "pod {pod} on node {node} cannot start: {why}"
CANNOT_RUN: Final = "container {container} of pod {pod} on node {node} cannot start: {why}"
FAILED_STARTS: Final = "{count} attempts in a row could not start. The last one: {last}"
NOT_STARTED: Final = "its containers were not started"
NO_POD: Final = "no pod was created"
START_TIMEOUT: Final = "pod {pod} was scheduled but did not start within {seconds:.0f} s: {message}"
STALLED: Final = "no progress for {seconds:.0f} s (spec.recovery.stallTimeoutSeconds); the last step was {step}"
NO_STATUS: Final = (
    "all pods are running, but pod {pod} (rank 0) is not ready and answered none of the operator's requests for "
    "{seconds:.0f} s ({why}); check its log, and that its image starts the trainer, which serves port {port}"
)
SILENT: Final = (
    "pod {pod} (rank 0) is not ready and answered none of the operator's requests for {seconds:.0f} s ({why}); the "
    "last step was {step}"
)
LEFT_ALONE: Final = (
    "pod {pod} (rank 0) ended {seconds:.0f} s ago without a completion record, and other ranks still run "
    "(spec.recovery.stallTimeoutSeconds); check that its image starts the trainer"
)
UNANSWERED: Final = (
    "; rank 0 does not answer the operator ({why}), so progress is not up to date: check that no NetworkPolicy blocks "
    "the operator"
)
WIDESPREAD: Final = (
    "; most jobs do not answer the operator ({why}), so progress is not up to date: check the operator's network"
)

FAILURES: Final = "{count} failures; spec.recovery.maxFailures is {limit}. The last one: {last}"
PREEMPTIONS: Final = "{count} disruptions; spec.recovery.maxPreemptions is {limit}. The last one: {last}"
NO_PROGRESS: Final = (
    "{count} failures in a row without a newly committed step "
    "(spec.recovery.maxRestartsWithoutProgress is {limit}). The last one: {last}"
)
DEADLINE: Final = "the job was active for spec.activeDeadlineSeconds ({seconds} s) and is not finished"
