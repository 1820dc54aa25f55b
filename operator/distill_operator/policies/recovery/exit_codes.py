"""spec.recovery.exitCodes: the user's rules for exit codes of the training container.

A rule says what an end means, not which end came first: causes are found without the rules. It does not apply to what
is certain without it: a container that never ran, a permanent mistake or a stop that the trainer itself reports, and
the echo of another rank's end.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from distill_api.constants import TRAINER_CONTAINER
from distill_api.reasons import Reason
from distill_api.spec.rules.exit_codes import ECHOED, Action, ExitCodeRule, action_for
from distill_operator.kube import texts
from distill_operator.types import messages
from distill_operator.types.actions import Notice
from distill_operator.types.observed import ContainerEnd, JobFacts

REASONS: Final[dict[Action, Reason]] = {"FailJob": Reason.FAIL_JOB_EXIT_CODE, "Ignore": Reason.IGNORED_EXIT_CODE}


def by_rule(notice: Notice, end: ContainerEnd | None, rules: Sequence[ExitCodeRule]) -> Notice:
    """Why the attempt ended, given the container's end that is its cause (None if it is another event)."""
    if end is None or end.container != TRAINER_CONTAINER or end.init or end.reason in texts.NEVER_STARTED:
        return notice
    if notice.reason.facts.echo or (end.report is not None and end.report.outcome != "failed"):
        return notice
    return _ruled(notice, end.exit_code, rules)


def by_rule_of_job(notice: Notice, job: JobFacts, rules: Sequence[ExitCodeRule]) -> Notice:
    """The same for an attempt whose pods are gone, by the exit code in the condition of its Job."""
    code = texts.exit_code_of_failed_job(job.failure_reason, job.failure_message)
    return notice if code is None or code in ECHOED else _ruled(notice, code, rules)


def _ruled(notice: Notice, code: int, rules: Sequence[ExitCodeRule]) -> Notice:
    action = action_for(code, rules)
    if action is None:
        return notice
    message = messages.RULED.format(message=notice.message, code=code, action=action)
    return replace(notice, reason=REASONS[action], message=message)
