"""Every sentence that the operator says to people in conditions, attempts and events."""

from typing import Final

ACCEPTED: Final = "the specification and its claims are in order"
CLAIM_NOT_FOUND: Final = (
    'claim "{claim}" of spec.volumes.{volume} does not exist in namespace {namespace}; create it, or use a '
    "claimTemplate"
)
CLAIM_LOST: Final = 'claim "{claim}" of spec.volumes.{volume} has lost its volume; bind it again or create a new one'
CLAIM_DELETING: Final = (
    'claim "{claim}" of spec.volumes.{volume} is being deleted; the job waits until it is gone (kubectl describe pvc '
    "{claim} tells which pods use it)"
)
CLAIM_TAKEN: Final = (
    'claim "{claim}", which spec.volumes.{volume}.claimTemplate asks for, exists and belongs to something else; the '
    "job waits until it is gone; delete it, or name it in claimName"
)
CLAIM_ONE_NODE: Final = (
    'spec.nodes is {nodes} but claim "{claim}" of spec.volumes.{volume} is {modes}; use a {wanted} claim or nodes: 1'
)
SPEC_UNREADABLE: Final = "this version of the operator cannot read the job: {errors}"

NAME_TAKEN: Final = "{what} exists and belongs to something else; the job waits until it is gone: {message}"
QUOTA: Final = "a quota is used up; the job waits: {message}"
NOT_ADMITTED: Final = (
    "{what} is refused for now; the job waits, and the attempt is taken back after "
    "spec.recovery.schedulingTimeoutSeconds: {message}"
)
NO_PRIORITY_CLASS: Final = (
    "{what} is refused until the PriorityClass of spec.scheduling.priorityClassName exists; create it, or make the "
    "job again with another one: {message}"
)
REJECTED: Final = "{what} is refused: {message}"

PODS_STARTING: Final = "attempt {attempt}: {running} of {nodes} pods run; waiting for the first step"
UNSCHEDULABLE: Final = "attempt {attempt}: {waiting} of {nodes} pods cannot be scheduled: {message}"
NOT_STARTING: Final = "attempt {attempt}: pod {pod} cannot start: {reason}: {message}"
QUEUED: Final = "attempt {attempt}: its Job is suspended by a queue"
TRAINING: Final = "attempt {attempt} makes steps"
PODS_TERMINATING: Final = "attempt {attempt} has ended ({reason}: {message}); {live} of its pods still terminate"
LATE_JOBS: Final = "the Job of an ended attempt has come late and is deleted: {jobs}"
STRAY_PODS: Final = "pods of an earlier gang still terminate: {pods}"
BACKING_OFF: Final = "attempt {attempt} ended ({reason}); the next one starts at {at}"
ATTEMPT_CREATED: Final = "attempt {attempt} with {nodes} nodes"
RESUMED: Final = "attempt {attempt} resumed from step {step}; {lost} steps are done again"
VERSIONS_CHANGED: Final = (
    "attempt {attempt} resumed with other versions than its checkpoint was written with ({changes}); from here on the "
    "run need not be bitwise equal to one that was not interrupted"
)
FIRST_STEP: Final = "attempt {attempt} makes steps on {nodes} nodes"
ATTEMPT_ENDED: Final = "attempt {attempt} ended: {message}"

SUSPENDED: Final = "spec.suspend is true; set it to false to go on"
SUSPENDING: Final = "spec.suspend is true; the pods commit and stop"
NOT_SUSPENDED: Final = "spec.suspend is false"
FULL_SIZE: Final = "runs with the nodes it asks for"
SMALLER: Final = "nodes {nodes}/{asked}: there was no room for more"
GROWS_AT: Final = "; the others are asked for from {at} on"
SHRINKING: Final = "; the next attempt has {nodes} nodes"
GROWING: Final = (
    "there is room for more nodes; the attempt commits and makes way for one with {more} instead of {nodes}"
)
COMPLETED: Final = "the student is at {checkpoint} on the checkpoints volume"

POD_PREEMPTED: Final = "pod {pod} on node {node} was preempted: {message}"
POD_EVICTED: Final = "pod {pod} was evicted from node {node}: {message}"
POD_GIVEN_UP: Final = (
    "pod {pod} was deleted, but node {node} has not confirmed its end {seconds} s after the grace period "
    "(spec.recovery.nodeLostTimeoutSeconds); the pod is given up with its node"
)
PODS_SILENT: Final = (
    "{pods} should have ended, but the node does not answer; given up at {at} "
    "(spec.recovery.nodeLostTimeoutSeconds), after which the next attempt starts. If the node is known to be off, "
    "delete it (kubectl delete node) to go on at once"
)
POD_NODE_LOST: Final = "pod {pod} was given up with its node {node}: {message}"
POD_DISRUPTED: Final = "a pod was disrupted while the operator was away: {message}"
POD_REFUSED_BY_KUBELET: Final = "pod {pod} was refused by node {node}: {reason}: {message}"
POD_DELETED: Final = "pod {pod} on node {node} was deleted by someone else"
PODS_DELETED: Final = "a pod was deleted while the operator was away: {message}"
JOB_DELETED: Final = "Job {job} was deleted by someone else"
OOM: Final = (
    "container {container} of pod {pod} on node {node} was killed for memory (exit code {code}); raise its memory "
    "limit, or lower training.batch, training.workers or training.imgsz"
)
KILLED: Final = "container {container} of pod {pod} on node {node} was killed (exit code 137)"
EXITED: Final = (
    "container {container} of pod {pod} on node {node} ended with exit code {code} and no report; see its log"
)
REPORTED: Final = "pod {pod} on node {node}: {message}"
GANG_STALLED: Final = "the gang's nodes stopped answering each other: {message}"
STOPPED: Final = "container {container} of pod {pod} on node {node} was stopped (SIGTERM)"
JOB_FAILED: Final = "Job {job} failed while the operator was away: {message}"
NO_RECORD: Final = "every pod of attempt {attempt} ended, but rank 0 left no completion record"

SCHEDULING_TIMEOUT: Final = (
    "not all {nodes} pods could be scheduled within {seconds:.0f} s; the attempt is taken back: {message}"
)
START_TIMEOUT: Final = "pod {pod} was scheduled but did not start within {seconds:.0f} s: {message}"
STALLED: Final = "no progress for {seconds:.0f} s (spec.recovery.stallTimeoutSeconds); the last step seen was {step}"
NEVER_ANSWERED: Final = (
    "all pods run, but no step was seen for {seconds:.0f} s; see the log of rank 0, and whether a NetworkPolicy "
    "keeps the operator from port {port}"
)

FAILURES: Final = "{count} failures; spec.recovery.maxFailures is {limit}. The last: {last}"
PREEMPTIONS: Final = "{count} disruptions; spec.recovery.maxPreemptions is {limit}. The last: {last}"
NO_PROGRESS: Final = (
    "{count} restarts in a row without a newly committed step "
    "(spec.recovery.maxRestartsWithoutProgress is {limit}). The last: {last}"
)
DEADLINE: Final = "not finished within spec.activeDeadlineSeconds ({seconds} s) of its first attempt"
