"""The last lines of `make demo`: figures and picture are the demo's own, and every command and file exists."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from digits.demo import __main__ as demo
from digits.demo import board, closing, story
from distill_cli.registry import COMMANDS
from testcluster import ExternalCluster
from tests.support.machine.python import ROOT


def test_the_scores_of_the_run_are_its_own() -> None:
    models = {"student": {"map": 0.4012}, "teacher": {"map": 0.4233}}
    assert closing.scores({"models": models}) == "mAP50-95   with its teacher 0.401   the teacher 0.423"
    compared = closing.scores({"models": models | {"baseline": {"map": 0.2}}})
    assert compared == "mAP50-95   the student alone 0.200   with its teacher 0.401   the teacher 0.423"


def spec(name: str) -> dict[str, Any]:
    job = yaml.safe_load((ROOT / "examples" / "digits" / story.JOBS[name]).read_text())
    assert job["metadata"]["name"] == name
    return dict(job["spec"])


def test_the_students_of_the_example_differ_by_the_teacher_alone() -> None:
    plain, student = spec(story.PLAIN), spec(story.STUDENT)
    assert student.pop("teacher")["model"].startswith(f"{story.TEACHER}/")
    assert student.pop("report") == {"baseline": story.PLAIN}
    assert (student.pop("recipe"), student["volumes"].pop("models")) == ("auto", {"claimName": "runs"})
    assert plain["training"].pop("val") is False, "it is validated after the last epoch"
    assert plain == student


@pytest.mark.parametrize("kept", [True, False])
def test_the_commands_that_are_named_exist(kept: bool) -> None:
    first, *lines = closing.on_cluster("team", "plain", "student", kept=kept)
    assert ("KEEP=1" in first) == (not kept)
    words = [line.split() for line in lines]
    assert {line[0] for line in words} == {".venv/bin/distill"}
    assert {line[1] for line in words} == {"status", "why", "open", "compare"}
    assert {line[1] for line in words} <= COMMANDS.keys()
    assert words[-1][-2:] == ["plain", "student"]


def test_the_end_names_the_report_and_files_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    without = closing.board(None, "it needs the cluster")
    demo.show(ROOT / "runs" / "demo" / "report.html", without, closing.without_cluster())
    printed = capsys.readouterr().out
    assert "runs/demo/report.html" in printed
    assert str(ROOT) not in printed
    for file in (closing.BOARD, closing.RESULTS, "docs/local.md", "examples/digits/distilljob.yaml"):
        assert file in printed
        assert (ROOT / file).is_file()


def test_the_end_names_its_own_picture_or_why_there_is_none(tmp_path: Path) -> None:
    drawn = closing.board(tmp_path / "board.png", None)
    assert str(tmp_path / "board.png") in drawn
    assert closing.BOARD not in drawn
    missing = closing.board(tmp_path / "board.png", "no Prometheus")
    assert "no Prometheus" in missing
    assert closing.BOARD in missing
    assert "board.png" not in missing
    assert "\n" not in drawn + missing


CREATED = {"metadata": {"namespace": "team", "name": "digits", "creationTimestamp": "2026-01-01T00:01:00Z"}}


def external(folder: Path) -> ExternalCluster:
    (folder / "kubeconfig").write_text("{}")
    return ExternalCluster(folder / "kubeconfig")


def test_a_cluster_that_prometheus_cannot_enter_goes_on_without(tmp_path: Path) -> None:
    told, old = [], tmp_path / "board.png"
    old.write_text("of an earlier demo")
    with board.recording(external(tmp_path), tmp_path / "prometheus") as recorded:
        told.append("the whole tour")
    recorded.draw({}, old)
    assert told
    assert "unset DISTILL_KUBECONFIG" in str(recorded.missing)
    assert not old.exists()


def test_a_picture_that_cannot_be_drawn_says_why_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    recorded = board.Recording(tmp_path / "prometheus")
    recorded.draw(CREATED, tmp_path / "board.png")
    assert recorded.missing == "prometheus is missing: apt-get install prometheus"
    recorded = board.Recording(tmp_path / "prometheus")
    recorded.draw({"metadata": {}}, tmp_path / "board.png")
    assert recorded.missing == "KeyError: 'namespace'"


def test_of_a_programs_log_the_last_line_is_shown() -> None:
    error = RuntimeError("Prometheus did not become ready: started\naddress in use\n")
    assert board.in_a_line(error) == "address in use"


def test_a_tour_that_fails_fails_while_it_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(story.TourFailed), board.recording(external(tmp_path), tmp_path / "prometheus"):
        raise story.TourFailed


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
