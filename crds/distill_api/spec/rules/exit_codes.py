"""spec.recovery.exitCodes: what exit codes of the training container mean, where they are not plain failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from distill_api.base import Model
from distill_api.constants import ExitCode
from distill_api.spec.rules.rule import Rule, check

RESERVED: Final = tuple(int(code) for code in ExitCode)
"""Codes with a meaning of their own, which no rule may change."""
ECHOED: Final = frozenset({1, 134, 137})
"""Codes that the trainer also has when a peer is gone (1, and 134 where PyTorch aborts), and any container at the end
of its grace period (137). Once the pods are gone, such a code alone does not show why they ended."""
MAX_RULES: Final = 16
MAX_VALUES: Final = 32

Action = Literal["FailJob", "Ignore"]


class ExitCodeRule(Model):
    """What some exit codes mean; the words are those of a podFailurePolicy in batch/v1."""

    values: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=1, max_length=MAX_VALUES)]
    """Exit codes of the container trainer, 1 to 255, each in one rule only. A process that was killed by signal n has
    128 + n. 0, 78 and 143 cannot be given."""
    action: Action
    """FailJob: the job is Failed at once (reason FailJobExitCode). Ignore: the next attempt starts, and the end is
    charged to no budget (reason IgnoredExitCode); it backs off, and counts for maxRestartsWithoutProgress, as a failure
    does."""


def _reserved(found: Sequence[ExitCodeRule]) -> bool:
    return not any(code in RESERVED for rule in found for code in rule.values)


def _once(found: Sequence[ExitCodeRule]) -> bool:
    codes = [code for rule in found for code in rule.values]
    return len(codes) == len(set(codes))


EXIT_CODES: Sequence[Rule] = (
    Rule(
        f"self.all(rule, rule.values.all(code, !(code in {list(RESERVED)})))",
        "recovery.exitCodes cannot have 0 (done), 78 (permanent failure) and 143 (stopped on request): their meaning is"
        " fixed; remove them",
        _reserved,
    ),
    Rule(
        "self.all(rule, rule.values.all(code, rule.values.exists_one(other, other == code)"
        " && self.exists_one(other, code in other.values)))",
        "recovery.exitCodes has the same exit code twice; give each code in one rule only",
        _once,
    ),
)


def _check(found: list[ExitCodeRule]) -> list[ExitCodeRule]:
    return check(found, EXIT_CODES)


ExitCodeRules = Annotated[list[ExitCodeRule], Field(max_length=MAX_RULES), AfterValidator(_check)]


def action_for(code: int, found: Sequence[ExitCodeRule]) -> Action | None:
    """The action of the rule for an exit code; None without one: the end is an ordinary failure."""
    return next((rule.action for rule in found if code in rule.values), None)
