"""The conditions Reconciling and Stalled, by which kstatus and GitOps tools compute how an object is.

Both are present only while they hold, and never both: a job that is at work reconciles, one that needs a person is
stalled, and a job that has reached what its spec asks for, an end or a suspension, has neither.
"""

from distill_api.constants import TERMINAL_PHASES, ConditionType, Phase
from distill_api.reason_facts import Wait
from distill_api.reasons import Reason
from distill_operator.types.actions import Notice

TYPES = frozenset({ConditionType.RECONCILING, ConditionType.STALLED})


def held(phase: Phase, notice: Notice, invalid: Notice | None) -> tuple[ConditionType, Notice] | None:
    """Which of the two a job in this phase has, and why; None for neither.

    `notice`: the reason for the phase. `invalid`: why the job cannot run as it is.
    """
    if phase == Phase.FAILED:
        return ConditionType.STALLED, notice
    if invalid is not None and needs_a_person(invalid.reason):
        return ConditionType.STALLED, invalid
    if phase in TERMINAL_PHASES or phase == Phase.SUSPENDED:
        return None
    return ConditionType.RECONCILING, notice


def needs_a_person(reason: Reason) -> bool:
    """Whether a job that waits for this reason goes on only after a change of its spec or of the installation."""
    return reason.facts.wait == Wait.CHANGE or reason == Reason.NOT_UNDERSTOOD
