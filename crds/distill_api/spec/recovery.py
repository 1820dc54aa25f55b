"""How a run survives: when it commits, what happens when an attempt ends, and with how many nodes it goes on."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from distill_api.base import Model
from distill_api.spec.rules.exit_codes import ExitCodeRules

LONGEST_SECONDS = 10**9


def _within_reach(seconds: int) -> int:
    return min(seconds, LONGEST_SECONDS)


# The API server takes any 64-bit number; times that are computed from one must stay within the calendar.
Reachable = AfterValidator(_within_reach)
Seconds = Annotated[int, Field(ge=1), Reachable]
"""A timeout. More than LONGEST_SECONDS, 31 years, are read as that."""


class Checkpoint(Model):
    """When checkpoints are committed to the checkpoints volume."""

    interval_seconds: Seconds | Literal["auto"] = 60
    """Seconds between checkpoints; one is also committed at the end of every epoch. auto: between 5 and 600 seconds,
    computed from the measured cost of a commit and the measured frequency of disruptions."""
    keep: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of newest checkpoints to keep. If the newest one is damaged, the one before it is used."""


class Recovery(Model):
    """What happens when an attempt ends before the training is complete."""

    max_failures: Annotated[int, Field(ge=0)] = 3
    """Maximum failures (crashes, out of memory, stalls) before the job is marked Failed."""
    max_preemptions: Annotated[int, Field(ge=0)] | None = None
    """Maximum disruptions (preemption, eviction, node loss, deleted pods) before the job is marked Failed. Default: no
    limit."""
    stall_timeout_seconds: Seconds = 600
    """An attempt without progress, neither steps nor a validation, for this long ends with the reason Stalled."""
    scheduling_timeout_seconds: Seconds = 900
    """An attempt whose pods are not all scheduled within this time, or not started within the same time from then, is
    withdrawn and tried again. Time in a queue, while its Job is suspended, does not count. A pod that cannot start
    until somebody repairs something, such as a mistyped image, is waited for 120 s only."""
    grace_period_seconds: Annotated[int, Field(ge=10, le=3600)] = 60
    """Time that a pod has after SIGTERM to commit a checkpoint."""
    node_lost_timeout_seconds: Seconds = 60
    """If a node does not confirm the end of a pod within this time after the pod's grace period, the node is considered
    lost: the operator force-deletes the pod and starts the next attempt. Processes that still run on the node can no
    longer commit. The default gives a kubelet time to restart."""
    avoid_node_seconds: Annotated[int, Field(ge=0, le=604800)] = 3600
    """How long the next attempts avoid a node on which an attempt ended for a cause that is the machine's, such as a
    CUDA device with an ECC error, or for the second time for one that may be (status.avoidedNodes). If an attempt lacks
    nodes because of that, the operator gives the oldest ones back to the job. 0: no node is avoided."""
    max_restarts_without_progress: Annotated[int, Field(ge=1)] = 5
    """Maximum restarts after failures, in a row and without a newly committed step, before the job is marked Failed,
    whatever maxFailures allows. Restarts after disruptions do not count: a job that is preempted before it commits
    waits longer before each attempt."""
    exit_codes: ExitCodeRules = []
    """Rules for exit codes of the training container, for entry scripts and drivers with codes of their own. Every
    other code is a failure that is retried and charged."""


class Elastic(Model):
    """Lets the job run on fewer nodes when capacity is short, and lets nodes be changed while it runs. The result is
    the same: the global batch does not change, because each rank also does a part of the missing ranks' work."""

    min_nodes: Annotated[int, Field(ge=1)] = 1
    """Minimum nodes of an attempt. Only sizes that make a step faster than the next smaller size are used: nodes
    divided by 1, 2, 3 and so on, rounded up, for example 4, 2, 1 for 4 nodes and 8, 4, 3, 2, 1 for 8."""
    shrink_after_seconds: Seconds = 300
    """An attempt whose pods are not all scheduled within this time is withdrawn, and the next one has as many nodes as
    were available. For an attempt with minNodes, recovery.schedulingTimeoutSeconds applies instead."""
    grow_after_seconds: Seconds = 600
    """After an attempt on fewer nodes has trained for this long, the operator creates placeholder pods for the missing
    nodes. Once these run, the attempt commits and a larger one replaces it. Each time the larger attempt cannot be
    scheduled after all, this time doubles, up to 32 times."""
