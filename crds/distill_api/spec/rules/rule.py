"""A rule across fields: for the API server and for Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from distill_api.reading.mistakes import BrokenRules

T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """One rule: `cel` for the API server, `holds` for Python; None for changes, which only the API server sees."""

    cel: str
    message: str
    holds: Callable[[Any], bool] | None = None
    of_field: bool = False
    """Whether the message begins with the name of the field that is wrong."""
    numbers: Callable[[Any], str] | None = None
    """What Python adds to the message: the values that do not go together, and some that do."""

    def told(self, model: Any) -> str:
        """The message for a model in which the rule does not hold."""
        return f"{self.message}: {self.numbers(model)}" if self.numbers is not None else self.message


def check(model: T, rules: Sequence[Rule]) -> T:
    """Return `model`. Raises BrokenRules."""
    broken = [(rule.told(model), rule.of_field) for rule in rules if rule.holds is not None and not rule.holds(model)]
    if broken:
        raise BrokenRules(broken)
    return model
