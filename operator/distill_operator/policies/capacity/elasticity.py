"""spec.elastic: how many nodes the next attempt has. An attempt never changes its size; the next one may."""

from datetime import datetime, timedelta

from distill_api.reasons import Reason
from distill_api.spec.fields import DistillJobSpec, Elastic
from distill_api.status import Attempt, DistillJobStatus
from distill_operator.types import attempts

MAX_DOUBLINGS = 5


def sizes(nodes: int, least: int) -> tuple[int, ...]:
    """The sizes that are worth having, largest first: all nodes, then those at which the busiest rank has as few
    virtual shards as a smaller size cannot offer. Between two of them a node more would only wait for the others.
    """
    found = [max(least, -(-nodes // shards)) for shards in range(1, nodes + 1)]
    return tuple(dict.fromkeys(found))


def next_size(status: DistillJobStatus, spec: DistillJobSpec) -> int:
    """Nodes of the next attempt: those of the last one, unless that ended to change them or the user was asked for.

    A job that was suspended starts with all nodes, for nothing is known of the room there is now.
    """
    last = attempts.newest(status)
    if spec.elastic is None or last is None or last.reason == Reason.SUSPENDED_BY_USER:
        return spec.nodes
    return min(max(last.next_nodes or last.nodes, spec.elastic.min_nodes), spec.nodes)


def smaller(spec: DistillJobSpec, nodes: int, placed: int) -> int | None:
    """The size to shrink to from `nodes` when `placed` pods found a node: the largest that fits, or else the least
    one, which may fit sooner than any other. None when there is no smaller one.
    """
    if spec.elastic is None:
        return None
    below = [size for size in sizes(spec.nodes, spec.elastic.min_nodes) if size < nodes]
    return next((size for size in below if size <= placed), below[-1] if below else None)


def larger(spec: DistillJobSpec, nodes: int, more: int) -> int | None:
    """The size to grow to from `nodes` when there is room for `more` nodes; None when that makes nothing faster."""
    if spec.elastic is None:
        return None
    return next((size for size in sizes(spec.nodes, spec.elastic.min_nodes) if nodes < size <= nodes + more), None)


def grow_delay(status: DistillJobStatus, elastic: Elastic) -> timedelta:
    """How long the newest attempt trains before it asks for more nodes; doubles with each growth that came to
    nothing, so that a job whose room is taken between asking and growing does not go on to and fro.
    """
    current = status.attempts[-1]
    in_vain = 0
    for attempt in reversed(status.attempts[:-1]):
        if attempt.reason == Reason.SUSPENDED_BY_USER or _ran_larger(attempt, current):
            break
        in_vain += attempt.reason == Reason.GROWING
    return timedelta(seconds=elastic.grow_after_seconds * 2 ** min(in_vain, MAX_DOUBLINGS))


def _ran_larger(attempt: Attempt, current: Attempt) -> bool:
    return attempt.nodes > current.nodes and attempt.running_at is not None


def may_grow(attempt: Attempt, spec: DistillJobSpec) -> bool:
    """Whether the attempt trains with fewer nodes than could be used."""
    return spec.elastic is not None and attempt.running_at is not None and attempt.nodes < spec.nodes


def with_grow_at(status: DistillJobStatus, spec: DistillJobSpec, now: datetime) -> DistillJobStatus:
    """The status with the time at which the newest attempt asks for the missing nodes."""
    attempt = status.attempts[-1]
    if spec.elastic is None or attempt.grow_at is not None or not may_grow(attempt, spec):
        return status
    grow_at = (attempt.running_at or now) + grow_delay(status, spec.elastic)
    return attempts.with_newest(status, attempt.model_copy(update={"grow_at": grow_at}))
