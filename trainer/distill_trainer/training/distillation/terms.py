"""The terms of a job's distillation loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_api.spec.distillation import Distillation
from distill_trainer.training.distillation.losses.registry import LOSSES, Signal, find
from distill_trainer.training.distillation.task import Term

ULTRALYTICS: Final[Sequence[Term]] = (Term(LOSSES["sl2"]),)
"""The loss of Ultralytics' distillation; its weight is the schedule's."""

TASK_OF: Final[Mapping[Signal, str]] = {Signal.KEYPOINTS: "pose", Signal.MASK: "segment"}
"""What only the models of one task have."""


def terms_of(distillation: Distillation) -> Sequence[Term]:
    """The terms, or the one loss of the short form, whose weight is the schedule's.

    Raises Permanent for a loss that does not exist, and for a share of the gradient at the neck if no term is there.
    """
    if not distillation.terms:
        return (Term(LOSSES[distillation.loss]),)
    terms = [_term(one.loss, one.weight) for one in distillation.terms]
    if distillation.share is not None and not any(term.on_neck for term in terms):
        raise Permanent(
            Reason.CONFIG_INVALID,
            "distillation.share balances losses on the neck, and no term is one; add such as spkd, or leave share out",
        )
    return terms


def check_task(terms: Sequence[Term], task: str) -> None:
    """Raise Permanent if a term teaches what models of the task do not have."""
    for term in terms:
        if term.loss.on in TASK_OF and task != TASK_OF[term.loss.on]:
            raise Permanent(
                Reason.CONFIG_INVALID,
                f"the student's task is {task}, which has no {term.loss.on}: remove {_name(term)} from the terms",
            )


def _name(term: Term) -> str:
    return next((name for name, loss in LOSSES.items() if loss is term.loss), "the term for it")


def _term(name: str, weight: float | None) -> Term:
    loss = find(name)
    return Term(loss, loss.weight if weight is None else weight, f"dis_{name}_loss")
