"""The log of a training container: what each line is about, and who may speak."""

import json
import logging

import pytest

from distill_api.logs import FORMAT_VARIABLE
from distill_api.pod.report import TerminationMessage
from distill_api.reasons import Reason
from distill_trainer.process.launcher.termination import log_ending
from distill_trainer.process.outcome import Ending
from distill_trainer.process.telemetry import logs
from distill_trainer.process.telemetry.console import Console
from distill_trainer.process.telemetry.logs import LogFacts

LOG = logging.getLogger("distill_trainer.test")
ABOUT = {"job": "digits", "attempt": 2, "execution": 3, "rank": 0, "step": 37}


pytestmark = pytest.mark.usefixtures("own_log")


def facts(rank: int | None = 0) -> LogFacts:
    return LogFacts(job="digits", attempt=2, rank=rank, position=lambda: (3, 37))


def failed() -> Ending:
    message = TerminationMessage(
        outcome="failed", reason=Reason.TRAINER_ERROR, message="no", rank=1, attempt=2, step=40
    )
    return Ending(1, message)


def test_a_line_as_json_names_job_attempt_execution_rank_and_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, "json")
    logs.configure(facts())
    LOG.warning("%d of\n%s", 1, "two lines")
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "WARNING", "logger": "distill_trainer.test", "message": "1 of\ntwo lines", **ABOUT}


def test_a_line_for_people_names_attempt_step_and_rank(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(facts())
    LOG.info("hello")
    assert capsys.readouterr().err.endswith(" attempt 2 step 37 rank 0 INFO distill_trainer.test: hello\n")
    logs.configure(facts(rank=None))
    LOG.info("hello")
    assert capsys.readouterr().err.endswith(" attempt 2 step 37 launcher INFO distill_trainer.test: hello\n")


@pytest.mark.parametrize(("rank", "said"), [(0, ["how it goes", "what is wrong"]), (1, ["what is wrong"])])
def test_rank_0_speaks_and_others_only_when_something_is_wrong(
    rank: int, said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, "json")
    logs.configure(facts(rank))
    LOG.info("how it goes")
    LOG.warning("what is wrong")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == said


def test_epochs_are_lines_of_the_log_where_it_is_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, "json")
    logs.configure(facts())
    console = Console(enabled=True, as_log=logs.as_json())
    console.epoch_started(1, 2, 1)
    console.batch_done({"box": 1.0})
    console.epoch_done(1, 2, {"box": 1.0}, 3.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["message"] == "epoch 1/2  box 1  3.0s"


def test_the_launcher_says_which_rank_failed_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(facts(rank=None))
    log_ending(failed())
    first, last = capsys.readouterr().err.splitlines()
    assert " launcher ERROR " in first
    assert first.endswith(": rank 1 is the first that failed")
    assert last == "error: TrainerError: no"

    monkeypatch.setenv(FORMAT_VARIABLE, "json")
    logs.configure(facts(rank=None))
    log_ending(failed())
    first, last = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["failedRank"], first["level"]) == (1, "ERROR")
    assert (last["reason"], last["message"], last["step"]) == ("TrainerError", "no", 40)
