"""The table of reasons: complete, consistent, and what the trainer raises is in it as such."""

import re
from pathlib import Path

import pytest

from distill_api.constants import Outcome
from distill_api.generate.reasons import document
from distill_api.pod.report import TerminationMessage
from distill_api.reason_facts import Group, Place, ReasonFacts, Wait
from distill_api.reasons import Reason

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
RAISED = re.compile(r"\b(Permanent|Retryable)\(\s*Reason\.(\w+)")


def raised_by_the_trainer() -> set[tuple[str, Reason]]:
    sources = [path.read_text() for folder in ("trainer", "cli") for path in (ROOT / folder).rglob("*.py")]
    return {(error, Reason[name]) for source in sources for error, name in RAISED.findall(source)}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_tells_people_what_happened_and_what_to_do(reason: Reason) -> None:
    for text in (reason.facts.cause, reason.facts.remedy):
        assert text.endswith("."), text
        assert "  " not in text
    assert reason.facts.places


def test_the_committed_page_is_what_the_table_generates() -> None:
    page = (ROOT / "docs" / "reasons.md").read_text()
    assert page == document(), "run `make generate` and commit docs/reasons.md"
    assert sorted(re.findall(r"^### (\w+)$", page, re.MULTILINE)) == sorted(Reason), "an anchor for each"


def test_a_row_without_a_remedy_is_refused_when_the_table_is_read() -> None:
    with pytest.raises(ValueError, match="Odd needs a cause and a remedy"):
        ReasonFacts(word="Odd", cause="Why.", remedy="", group=Group.WAITING, places=frozenset())


def test_a_reason_that_ends_attempts_says_what_they_count_as() -> None:
    with pytest.raises(ValueError, match="Odd needs an outcome"):
        ReasonFacts(
            word="Odd", cause="Why.", remedy="Do.", group=Group.FAILURE, places=frozenset({Place.ATTEMPT})
        )  # fmt: skip


@pytest.mark.parametrize("reason", Reason)
def test_the_facts_of_a_reason_agree(reason: Reason) -> None:
    facts = reason.facts
    assert not facts.permanent or (facts.outcome, facts.group) == (Outcome.FAILED, Group.PERMANENT)
    assert facts.budget == {Outcome.FAILED: "failures", Outcome.DISRUPTED: "preemptions"}.get(
        facts.outcome or Outcome.RUNNING
    )
    assert facts.outcome != Outcome.RUNNING
    assert facts.wait == Wait.NONE or facts.group == Group.WAITING
    assert facts.outcome not in (Outcome.FAILED, Outcome.DISRUPTED) or facts.warning


def test_the_trainer_raises_reasons_for_what_the_table_says_they_are() -> None:
    raised = raised_by_the_trainer()
    assert len(raised) > 15
    for error, reason in raised:
        assert reason.facts.fails_again == (error == "Permanent"), f"{error}({reason})"
        assert Place.TERMINATION in reason.facts.places, f"{error}({reason})"


@pytest.mark.parametrize("word", ["NewerReason", "BackingOff", "PodRejected"])
def test_a_reason_that_no_trainer_reports_is_read_as_a_trainer_error(word: str) -> None:
    text = f'{{"outcome": "failed", "reason": "{word}", "attempt": 1}}'
    assert TerminationMessage.model_validate_json(text).reason == Reason.TRAINER_ERROR
