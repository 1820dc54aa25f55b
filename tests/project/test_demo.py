"""The last lines of `make demo`: every figure is the demo's own or recorded, and every command and file exists."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from digits.demo import __main__ as demo
from digits.demo import closing, story
from distill_cli.registry import COMMANDS
from tests.support.machine.python import ROOT


def report(**fields: Any) -> dict[str, Any]:
    return {"models": {"student": {"map": 0.4012}, "teacher": {"map": 0.4233}}} | fields


def test_the_recorded_scores_are_those_of_the_results(tmp_path: Path) -> None:
    raw = tmp_path / "some-results.csv"
    raw.write_text(
        "arm,seed,epochs,map\nplain,0,3,0.1\nauto,0,3,0.7\nauto,0,3,0.3\nplain,1,3,0.2\nauto,1,3,0.5\nteacher,9,9,0.9\n"
    )
    text = "\n".join(closing.recorded(raw))
    assert "plain 0.150   recipe: auto 0.400" in text
    assert "3 epochs, mean of 2 seeds (docs/results/some-results.md)" in text
    assert "not by this demo" in text


def test_the_results_that_are_named_exist_and_are_these() -> None:
    *_, named, scores = closing.recorded()
    document = (ROOT / named[named.index("docs/") : named.index(".md") + 3]).read_text()
    assert "400 for training" in document
    assert "scenes of 128 px" in document
    mean = scores.split()[-1]
    assert f"| `auto`: `recipe: auto` | {mean}" in document, "its row of differences begins with its mean"


def test_the_scores_of_the_run_are_its_own() -> None:
    assert closing.scores(report()) == "mAP50-95   student 0.401   teacher 0.423"
    agreeing = report(agreement={"images": 48, "student": 0.57, "baseline": None})
    assert closing.scores(agreeing).endswith("they agree on 57% of what they detect")


def test_the_jobs_that_are_named_are_those_of_the_example() -> None:
    for file, name in (("teacher.yaml", story.TEACHER), ("distilljob.yaml", story.STUDENT)):
        assert yaml.safe_load((ROOT / "examples" / "digits" / file).read_text())["metadata"]["name"] == name


@pytest.mark.parametrize("kept", [True, False])
def test_the_commands_that_are_named_exist(kept: bool) -> None:
    first, *lines = closing.on_cluster("team", "teacher", "student", kept=kept)
    assert ("KEEP=1" in first) == (not kept)
    words = [line.split() for line in lines]
    assert {line[0] for line in words} == {".venv/bin/distill"}
    assert {line[1] for line in words} == {"status", "why", "open", "compare"}
    assert {line[1] for line in words} <= COMMANDS.keys()
    assert words[-1][-2:] == ["teacher", "student"]


def test_the_end_names_the_report_and_files_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    demo.show(ROOT / "runs" / "demo" / "report.html", closing.without_cluster())
    printed = capsys.readouterr().out
    assert "runs/demo/report.html" in printed
    assert str(ROOT) not in printed
    for file in (closing.BOARD, "docs/local.md", "examples/digits/distilljob.yaml"):
        assert file in printed
        assert (ROOT / file).is_file()


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("Unschedulable", "t: Starting · attempt 1 · Unschedulable: no node"),
        ("PodsStarting", "t: Starting · attempt 1"),
    ],
)
def test_a_line_says_what_a_job_waits_for(reason: str, told: str) -> None:
    conditions = [
        {"type": "Validated", "reason": "Accepted"},
        {"type": "Running", "reason": reason, "message": "no node"},
    ]
    status = {"phase": "Starting", "attempt": 1, "conditions": conditions}
    assert story.summary({"metadata": {"name": "t"}, "status": status}) == told


def test_an_interrupted_demo_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "why_not_a_cluster", lambda: None)
    monkeypatch.setattr(demo, "on_cluster", interrupted)
    assert demo.main() == 130
    assert capsys.readouterr().err.count("\n") == 1
