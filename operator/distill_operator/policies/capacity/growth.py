"""How a smaller attempt finds out that there is room for more nodes: it asks the scheduler, and nobody else.

A Job of placeholder pods, as many as there are nodes missing and as demanding as training pods, waits beside the
gang for as long as it takes. A placeholder that runs holds its node, so an attempt ends for a larger one only when the
nodes are there; the placeholders go when the larger attempt's pods come. No other pod or node is ever looked at.
"""

from datetime import timedelta

from distill_api.constants import Reason
from distill_api.status import Attempt
from distill_operator import builders
from distill_operator.policies.capacity import elasticity
from distill_operator.types import attempts, messages
from distill_operator.types.actions import Action, Create, Delete, Notice
from distill_operator.types.observed import Placeholders
from distill_operator.types.pass_context import Case


def due(case: Case, attempt: Attempt) -> Notice | None:
    """Why the attempt makes way for a larger one, once the placeholders hold what that needs."""
    held, size = case.observed.placeholders, target(case, attempt)
    if held is None or size is None:
        return None
    if size == case.spec.nodes or _waited(case, held):
        return Notice(Reason.GROWING, messages.GROWING.format(nodes=attempt.nodes, more=size))
    return None


def target(case: Case, attempt: Attempt) -> int | None:
    """The size that the attempt can grow to with the nodes that are held; None without any."""
    held = case.observed.placeholders
    if held is None or held.job.inert or not elasticity.may_grow(attempt, case.spec):
        return None
    return elasticity.larger(case.spec, attempt.nodes, sum(pod.running for pod in held.pods))


def pursued(case: Case, attempt: Attempt) -> tuple[Case, tuple[Action, ...]]:
    """The case with the time of the next try, and what is done about the placeholders of a sound attempt."""
    case = case.having(elasticity.with_grow_at(case.status, case.spec, case.now))
    attempt, held, elastic = case.status.attempts[-1], case.observed.placeholders, case.spec.elastic
    if elastic is None or not elasticity.may_grow(attempt, case.spec):
        return case, cleared(case)
    if held is not None:
        if held.job.deleting or not (held.job.inert or _waited(case, held)):
            return case, ()
        return _again(case, attempt), cleared(case)
    if attempt.grow_at is None or case.now < attempt.grow_at:
        return case, ()
    missing = case.spec.nodes - attempt.nodes
    job, image = case.observed.job, case.settings.trainer_image
    manifest = builders.build_placeholders(job, case.observed.namespace, missing, image)
    return _again(case, attempt), (Create(manifest, optional=True),)


def cleared(case: Case) -> tuple[Delete, ...]:
    """The deletion of placeholders that are not needed."""
    held = case.observed.placeholders
    if held is None or held.job.deleting:
        return ()
    return (Delete("Job", held.job.name, held.job.uid),)


def _again(case: Case, attempt: Attempt) -> Case:
    """The next try is stored before anything is done: one that is refused or taken back waits as long again."""
    assert case.spec.elastic is not None
    grow_at = case.now + elasticity.grow_delay(case.status, case.spec.elastic)
    return case.having(attempts.rewritten(case.status, attempt.model_copy(update={"grow_at": grow_at})))


def _waited(case: Case, held: Placeholders) -> bool:
    """Whether nodes have been held for as long as an attempt would have waited for the others."""
    placed = [pod.scheduled_at for pod in held.pods if pod.live and pod.scheduled_at is not None]
    elastic = case.spec.elastic
    return (
        bool(placed)
        and elastic is not None
        and case.now >= min(placed) + timedelta(seconds=elastic.shrink_after_seconds)
    )
