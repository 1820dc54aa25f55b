"""Nodes that the next attempts avoid, because attempts ended there for causes that are the machine's.

The table of reasons says which ends speak against a node (`blames_node`). Some do at once: no pod of the next attempts
may run there. Others do only if they are not the first within spec.recovery.avoidNodeSeconds, and may be the program's
all the same: the next attempts only prefer other nodes. A job must never wait for want of the nodes that it avoids:
there are few of them, each only for a time, and an attempt that lacks nodes gives back the oldest.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from distill_api.reason_facts import Blame
from distill_api.reasons import Reason
from distill_api.spec.fields import Recovery
from distill_api.status import KEPT_AVOIDED_NODES, Attempt, AvoidedNode, DistillJobStatus
from distill_operator.kube import texts
from distill_operator.types import attempts, clocks, messages
from distill_operator.types.actions import Notice
from distill_operator.types.observed import PodFacts

PATIENCE_SECONDS = 300
"""How long an attempt that avoids nodes waits for others: as long as an autoscaler needs for a new one. With a shorter
spec.recovery.schedulingTimeoutSeconds it waits for that."""


def current(status: DistillJobStatus, recovery: Recovery, now: datetime) -> DistillJobStatus:
    """The status without the nodes whose time is over."""
    kept = [node for node in status.avoided_nodes if recovery.avoid_node_seconds > 0 and now < node.until]
    return status if kept == status.avoided_nodes else status.model_copy(update={"avoided_nodes": kept})


def names(status: DistillJobStatus) -> tuple[str, ...]:
    """The nodes that the pods of an attempt which starts now must not run on."""
    unwanted = attempts.unwanted_nodes(status)
    return tuple(node.node for node in status.avoided_nodes if node.node not in unwanted)


def of_end(notice: Notice, pods: Iterable[PodFacts]) -> str | None:
    """The node that an attempt's end is about. A start problem is its node's own only if other pods have started."""
    gang = tuple(pods)
    if notice.reason.facts.cannot_start and not any(_has_started(pod) for pod in gang if pod.node != notice.node):
        return None
    return notice.node


def _has_started(pod: PodFacts) -> bool:
    return pod.running or (pod.end is not None and not pod.end.init and pod.end.reason not in texts.NEVER_STARTED)


def after(status: DistillJobStatus, pods: Iterable[PodFacts], recovery: Recovery) -> DistillJobStatus:
    """The status after the end of its newest attempt: a node to blame is avoided from now on, and an attempt that
    lacked nodes gives some back.
    """
    ended = status.attempts[-1]
    # What an earlier reason for the same end has added is decided anew.
    kept = [node for node in status.avoided_nodes if node.attempt != ended.number]
    if ended.reason == Reason.SCHEDULING_TIMEOUT and ended.next_nodes is None:
        back = given_back(ended, pods)
        kept = [node for node in kept if node.node not in back]
    new = _blamed(status, recovery)
    if new is not None:
        kept = [*(node for node in kept if node.node != new.node), new]
    return status.model_copy(update={"avoided_nodes": kept[-KEPT_AVOIDED_NODES:]})


def _blamed(status: DistillJobStatus, recovery: Recovery) -> AvoidedNode | None:
    """The node that the end of the newest attempt speaks against; None if it speaks against none."""
    *earlier, ended = status.attempts
    if ended.node is None or ended.reason is None or ended.ended_at is None or recovery.avoid_node_seconds == 0:
        return None
    blame, span = ended.reason.facts.blames_node, timedelta(seconds=recovery.avoid_node_seconds)
    repeated = any(_speaks_against(attempt, ended.node, ended.ended_at - span) for attempt in earlier)
    if blame == Blame.NEVER or (blame == Blame.REPEATED and not repeated):
        return None
    return AvoidedNode(node=ended.node, reason=ended.reason, attempt=ended.number, until=ended.ended_at + span)


def _speaks_against(attempt: Attempt, node: str, since: datetime) -> bool:
    if attempt.node != node or attempt.reason is None or attempt.ended_at is None:
        return False
    return attempt.ended_at > since and attempt.reason.facts.blames_node != Blame.NEVER


def given_back(attempt: Attempt, pods: Iterable[PodFacts]) -> tuple[str, ...]:
    """The nodes that the attempt avoided and that are used again: the oldest, as many as it lacked."""
    return tuple((attempt.avoids or [])[: len(_unplaced(pods))])


def _unplaced(pods: Iterable[PodFacts]) -> list[PodFacts]:
    return [pod for pod in pods if pod.live and pod.unschedulable]


def due_at(since: datetime, recovery: Recovery) -> datetime:
    """Until when an attempt that was admitted at `since` waits for other nodes than those it avoids."""
    return since + timedelta(seconds=min(PATIENCE_SECONDS, recovery.scheduling_timeout_seconds))


def in_the_way(
    attempt: Attempt, pods: Iterable[PodFacts], since: datetime, recovery: Recovery, now: datetime
) -> Notice | None:
    """Why the attempt is withdrawn: some of its pods have no node, which may be for those that it avoids."""
    gang = tuple(pods)
    waiting, back = _unplaced(gang), given_back(attempt, gang)
    if not back or now < due_at(since, recovery):
        return None
    seconds = (due_at(since, recovery) - since).total_seconds()
    text = messages.SCHEDULING_TIMEOUT.format(nodes=attempt.nodes, seconds=seconds, message=waiting[0].unschedulable)
    return Notice(Reason.SCHEDULING_TIMEOUT, text + messages.GIVEN_BACK.format(nodes=", ".join(back)))


def explained(notice: Notice, attempt: Attempt, since: datetime, recovery: Recovery) -> Notice:
    """What an attempt waits for, with the nodes that it avoids if it lacks some."""
    if notice.reason != Reason.UNSCHEDULABLE or not attempt.avoids:
        return notice
    at = clocks.time_of_day(due_at(since, recovery))
    return Notice(notice.reason, notice.message + messages.IN_THE_WAY.format(nodes=", ".join(attempt.avoids), at=at))
