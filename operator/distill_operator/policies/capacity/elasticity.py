"""spec.elastic: the number of nodes of the next attempt. An attempt never changes its own size."""

from datetime import datetime, timedelta

from distill_api.reasons import Reason
from distill_api.spec.fields import DistillJobSpec, Elastic
from distill_api.status import Attempt, DistillJobStatus
from distill_operator.types import attempts

MAX_DOUBLINGS = 5


def sizes(full: int, least: int, most: int | None = None) -> tuple[int, ...]:
    """The sizes that are used, largest first: for each number of virtual shards per rank, the fewest nodes that it
    takes of `full`, which have one shard for each rank. A size in between is no faster, because all ranks wait for the
    one with the most shards; but `most`, which the user asks for, is used in any case.
    """
    found = [min(most or full, max(least, -(-full // shards))) for shards in range(1, full + 1)]
    return tuple(dict.fromkeys(found))


def next_size(status: DistillJobStatus, spec: DistillJobSpec) -> int:
    """Nodes of the next attempt: as many as the last one had, unless that one ended in order to change them.

    The first attempt, and the first one after a suspension, has all nodes.
    """
    last = attempts.newest(status)
    if spec.elastic is None or last is None or last.reason == Reason.SUSPENDED_BY_USER:
        return spec.nodes
    return min(max(last.next_nodes or last.nodes, spec.elastic.min_nodes), spec.nodes)


def smaller(status: DistillJobStatus, spec: DistillJobSpec, nodes: int, placed: int) -> int | None:
    """The size to shrink to from `nodes` when `placed` pods were scheduled: the largest one that fits, else the
    smallest. None when no smaller size is allowed.
    """
    below = [size for size in _sizes(status, spec) if size < nodes]
    return next((size for size in below if size <= placed), below[-1] if below else None)


def larger(status: DistillJobStatus, spec: DistillJobSpec, nodes: int, more: int) -> int | None:
    """The size to grow to from `nodes` with `more` nodes; None when they reach neither spec.nodes nor a size that would
    make steps faster.
    """
    return next((size for size in _sizes(status, spec) if nodes < size <= nodes + more), None)


def _sizes(status: DistillJobStatus, spec: DistillJobSpec) -> tuple[int, ...]:
    """The sizes of this job; none if it is not elastic."""
    if spec.elastic is None:
        return ()
    return sizes(attempts.full_nodes(status, spec), spec.elastic.min_nodes, spec.nodes)


def grow_delay(status: DistillJobStatus, elastic: Elastic) -> timedelta:
    """How long the newest attempt trains before it asks for more nodes. The time doubles with each failed growth, so
    that a job does not alternate between two sizes when others keep taking the nodes it asked for, and with each try
    that found no room for all, so that it does not reserve idle nodes again and again.
    """
    current = status.attempts[-1]
    failed = current.grow_tries
    for attempt in reversed(status.attempts[:-1]):
        if attempt.reason == Reason.SUSPENDED_BY_USER or _ran_larger(attempt, current):
            break
        failed += attempt.reason == Reason.GROWING
    return timedelta(seconds=elastic.grow_after_seconds * 2 ** min(failed, MAX_DOUBLINGS))


def _ran_larger(attempt: Attempt, current: Attempt) -> bool:
    return attempt.nodes > current.nodes and attempt.running_at is not None


def may_grow(attempt: Attempt, spec: DistillJobSpec) -> bool:
    """Whether the attempt is training on fewer nodes than the job asks for."""
    return spec.elastic is not None and attempt.running_at is not None and attempt.nodes < spec.nodes


def with_grow_at(status: DistillJobStatus, spec: DistillJobSpec, now: datetime) -> DistillJobStatus:
    """The status with the time at which the newest attempt asks for the missing nodes."""
    attempt = status.attempts[-1]
    if spec.elastic is None or attempt.grow_at is not None or not may_grow(attempt, spec):
        return status
    grow_at = (attempt.running_at or now) + grow_delay(status, spec.elastic)
    return attempts.with_newest(status, attempt.model_copy(update={"grow_at": grow_at}))
