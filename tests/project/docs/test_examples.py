"""The examples recommend what `distill init` and the tutorial do."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_api.constants import KIND
from distill_cli.views.skeleton import STUDENTS, teacher_for
from tests.support.machine.python import ROOT

JOBS = ROOT / "examples/jobs"
PAIRS = sorted((JOBS / "pairs").glob("*.yaml"))
TASKS = (ROOT / "docs/tutorials/tasks.md").read_text()


def specs(path: Path) -> list[dict[str, Any]]:
    return [found["spec"] for found in yaml.safe_load_all(path.read_text()) if found["kind"] == KIND]


def pair(path: Path) -> tuple[str, str]:
    (spec,) = specs(path)
    return spec["student"]["model"], spec["teacher"]["model"]


@pytest.mark.parametrize("path", sorted(JOBS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(JOBS)))
def test_the_teacher_is_the_one_that_init_proposes(path: Path) -> None:
    for spec in specs(path):
        if "teacher" in spec:
            assert spec["teacher"]["model"] == teacher_for(spec["student"]["model"])
            assert spec["recipe"] == "auto"


def test_every_recommended_pair_and_every_task_has_an_example() -> None:
    arrows = re.findall(r"\b([nsml]) ← ([smlx])\b", TASKS)
    assert len(arrows) == 4
    assert all(teacher_for(f"yolo26{student}.yaml") == f"yolo26{teacher}.pt" for student, teacher in arrows)
    table = re.findall(r"^\| \w+ \| `(\S+)` \| `(\S+)` \|", TASKS, re.MULTILINE)
    tasks = {name for name in STUDENTS if name.startswith("yolo26n")}
    assert {student for student, _ in table} == tasks
    detect = {(f"yolo26{student}.yaml", f"yolo26{teacher}.pt") for student, teacher in arrows}
    assert sorted(map(pair, PAIRS)) == sorted(detect | set(table))


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_a_pair_is_on_two_nodes_of_eight_gpus_and_is_called_what_it_is(path: Path) -> None:
    (job,) = yaml.safe_load_all(path.read_text())
    spec, comment = job["spec"], path.read_text().partition("\n")[0]
    assert (spec["nodes"], spec["accelerators"]) == (2, {"perNode": 8})
    assert f"{spec['training']['batch'] // 16} images for each of the 16 GPUs" in path.read_text()
    assert job["metadata"]["name"] == path.stem
    student, teacher = (name.rpartition(".")[0] for name in pair(path))
    assert comment.startswith(f"# {student} learns from {teacher} on ")
    assert path.stem.startswith(student)


def test_the_table_has_every_file() -> None:
    rows = {name for row in re.findall(r"^\| (`.*?) \|", (JOBS / "README.md").read_text(), re.MULTILINE)
            for name in re.findall(r"`(\S+)`", row)}  # fmt: skip
    assert rows == {str(path.relative_to(JOBS)) for path in JOBS.rglob("*.yaml")}
