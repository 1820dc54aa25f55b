"""How an attempt on fewer nodes finds out that there is room for more: it asks the scheduler with placeholder pods.

A Job creates one placeholder for each missing node, with the requests of a training pod's trainer container and at a
lower priority, so that they preempt nobody. They stay Pending until there is room. A running placeholder reserves its
node, so an attempt ends for a larger one only when the nodes are available; the placeholders are deleted when the
larger attempt's pods are created. The operator reads no other pods and no nodes.
"""

from datetime import timedelta

from distill_api.reasons import Reason
from distill_api.status import Attempt
from distill_operator import builders
from distill_operator.policies.capacity import elasticity
from distill_operator.policies.lifetime import template
from distill_operator.policies.recovery import bad_nodes
from distill_operator.types import attempts, messages
from distill_operator.types.actions import Action, Create, Delete, Notice
from distill_operator.types.observed import Placeholders
from distill_operator.types.pass_context import PassContext


def ready(context: PassContext, attempt: Attempt) -> Notice | None:
    """Why the attempt ends for a larger one: the placeholders have reserved enough nodes."""
    held, size = context.observed.placeholders, target(context, attempt)
    if held is None or size is None:
        return None
    if size == context.spec.nodes or _held_long_enough(context, held):
        return Notice(Reason.GROWING, messages.GROWING.format(nodes=attempt.nodes, more=size))
    return None


def target(context: PassContext, attempt: Attempt) -> int | None:
    """The size that the attempt can grow to with the reserved nodes; None when that is no larger."""
    held = context.observed.placeholders
    if held is None or held.job.inert or not elasticity.may_grow(attempt, context.spec):
        return None
    return elasticity.larger(context.status, context.spec, attempt.nodes, sum(pod.running for pod in held.pods))


def with_placeholders(context: PassContext, attempt: Attempt) -> tuple[PassContext, tuple[Action, ...]]:
    """The context with the time of the next try, and the actions on placeholders while the attempt is healthy."""
    context = context.with_status(elasticity.with_grow_at(context.status, context.spec, context.now))
    attempt, held, elastic = context.status.attempts[-1], context.observed.placeholders, context.spec.elastic
    if elastic is None or not elasticity.may_grow(attempt, context.spec):
        return context, remove_placeholders(context)
    missing, avoids = context.spec.nodes - attempt.nodes, bad_nodes.names(context.status)
    changed = held is not None and not held.job.deleting and held.job.nodes != missing  # spec.nodes
    if changed or (held is not None and _avoids_too_much(context, held)):
        again = attempt.model_copy(update={"grow_at": context.now})
        return context.with_status(attempts.with_newest(context.status, again)), remove_placeholders(context)
    if held is not None:
        if held.job.deleting or not (held.job.inert or _held_long_enough(context, held)):
            return context, ()
        tried = attempt.model_copy(update={"grow_tries": attempt.grow_tries + 1})
        context = context.with_status(attempts.with_newest(context.status, tried))
        return _with_next_try(context, tried), remove_placeholders(context)
    if attempt.grow_at is None or context.now < attempt.grow_at or template.refused(context.spec) is not None:
        return context, ()
    manifest = builders.build_placeholders(context.observed, missing, context.settings, avoids)
    return _with_next_try(context, attempt), (Create(manifest, optional=True),)


def _avoids_too_much(context: PassContext, held: Placeholders) -> bool:
    """Whether placeholders wait for nodes without using one that the job no longer avoids."""
    waits = not held.job.inert and not any(pod.scheduled_at is not None for pod in held.pods)
    return waits and not set(held.job.avoids) <= set(bad_nodes.names(context.status))


def remove_placeholders(context: PassContext) -> tuple[Delete, ...]:
    """The deletion of the placeholders, if there are any."""
    held = context.observed.placeholders
    if held is None or held.job.deleting:
        return ()
    return (Delete("Job", held.job.name, held.job.uid),)


def _with_next_try(context: PassContext, attempt: Attempt) -> PassContext:
    """Store the time of the next try before any action, so that a try that is refused is not repeated at once."""
    assert context.spec.elastic is not None
    grow_at = context.now + elasticity.grow_delay(context.status, context.spec.elastic)
    return context.with_status(attempts.with_newest(context.status, attempt.model_copy(update={"grow_at": grow_at})))


def _held_long_enough(context: PassContext, held: Placeholders) -> bool:
    """Whether placeholders have waited for the others for elastic.shrinkAfterSeconds, as an attempt would have."""
    placed = [pod.scheduled_at for pod in held.pods if pod.live and pod.scheduled_at is not None]
    elastic = context.spec.elastic
    return (
        bool(placed)
        and elastic is not None
        and context.now >= min(placed) + timedelta(seconds=elastic.shrink_after_seconds)
    )
