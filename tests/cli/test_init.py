"""`distill init`: what it writes validates, and says what to change."""

import itertools
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill_api.job import read_job
from distill_cli.commands.local.run import _claims
from distill_cli.jobfile import load
from distill_cli.main import app
from distill_cli.views.skeleton import STUDENTS, job_name, teacher_for
from distill_local.machine import Machine, run_config
from tests.support.cli.terminal import terminal
from tests.support.machine.python import command, environment


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_without_options_it_writes_the_recommended_pair(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    code, output = run("init", str(file))
    assert (code, output.splitlines()) == (
        0,
        [
            f"wrote {file}",
            f"next: distill apply {file} --check  (a pod without GPUs first looks at models and data)",
            f"or without a cluster: distill run {file} --volume data=DIR --volume models=DIR",
        ],
    )
    job = read_job(file.read_text())
    assert job.spec.teacher is not None
    assert (job.spec.student.model, job.spec.teacher.model) == ("yolo26n.yaml", "yolo26s.pt")
    assert (job.spec.recipe, job.metadata.name) == ("auto", "yolo26n-coco")
    assert run("validate", str(file))[0] == 0


@pytest.mark.parametrize(
    ("student", "teacher", "nodes", "gpus"),
    list(itertools.product(["yolo11n-seg.yaml", "mine/best.pt"], ["none", "big.pt"], ["1", "3"], ["0", "4"])),
)
def test_every_choice_validates(tmp_path: Path, student: str, teacher: str, nodes: str, gpus: str) -> None:
    file = tmp_path / "job.yaml"
    options = ("--student", student, "--teacher", teacher, "--nodes", nodes, "--gpus", gpus, "--data", "Data_1/a.yaml")
    code, output = run("init", str(file), *options)
    assert code == 0, output
    spec = read_job(file.read_text()).spec
    assert spec.training.batch == 16 * spec.world_size
    assert (spec.nodes, spec.teacher is None, spec.uses_cuda) == (int(nodes), teacher == "none", gpus != "0")


@pytest.mark.parametrize("student", STUDENTS)
def test_the_teacher_is_the_next_size_of_the_family(student: str) -> None:
    teacher = teacher_for(student)
    assert teacher != student.replace(".yaml", ".pt")
    assert teacher.removesuffix(".pt").startswith(student.partition("n.")[0][:6])
    assert ("-seg" in teacher) == ("-seg" in student)


@pytest.mark.parametrize(
    ("student", "data", "name"),
    [
        ("yolo26n.yaml", "coco.yaml", "yolo26n-coco"),
        ("8x_y.pt", "A/B.yaml", "job-8x-y-b"),
        ("a.pt", "b" * 80 + ".yaml", "a-" + "b" * 50),
    ],
)
def test_names_of_jobs_are_valid(student: str, data: str, name: str) -> None:
    assert job_name(student, data) == name


def test_what_it_proposes_runs_once_the_directories_are_named(tmp_path: Path) -> None:
    """Without a trainer: a directory that does not exist is the first that `run` finds wrong, and now none is."""
    file, options = tmp_path / "job.yaml", ("--teacher", "none", "--data-claim", "photos", "--checkpoints", "out")
    proposed = run("init", str(file), *options)[1].splitlines()[-1].removeprefix("or without a cluster: distill ")
    assert proposed == f"run {file} --volume photos=DIR"
    job, shown = load(file), proposed.replace("DIR", str(tmp_path)).split()
    config = run_config(job, Machine(tmp_path, _claims(shown[3:]), None), 1, tmp_path / "termination")
    assert config.directories.data == str(tmp_path)


def test_a_file_is_not_replaced_unless_told(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("mine")
    assert run("init", str(file)) == (1, f"error: {file} exists; use --force to replace it, or name another file\n")
    assert file.read_text() == "mine"
    assert run("init", str(file), "--force")[0] == 0


def test_in_a_terminal_it_asks_for_what_is_not_given(tmp_path: Path) -> None:
    with terminal(command("distill_cli.main", "init", "job.yaml", "--gpus", "2"), environment(), tmp_path) as shown:
        for question, answer in (
            ("student (architecture .yaml, or .pt on the models claim) [yolo26n.yaml]: ", "yolo11s.yaml"),
            ("teacher (.pt on the models claim, or none) [yolo11m.pt]: ", ""),
            ("data set (YAML on the data claim) [coco.yaml]: ", "birds.yaml"),
            ("nodes [1]: ", "many"),
            ("nodes [1]: ", "3"),
        ):
            shown.expect(question)
            shown.type(f"{answer}\n")
        assert shown.end() == 0
    assert "GPUs of each node" not in shown.text, "it was given"
    spec = read_job((tmp_path / "job.yaml").read_text()).spec
    assert spec.teacher is not None
    assert (spec.student.model, spec.teacher.model, spec.dataset.config) == ("yolo11s.yaml", "yolo11m.pt", "birds.yaml")
    assert (spec.nodes, spec.accelerators.per_node) == (3, 2)


def test_a_wrong_name_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    code, output = run("init", str(file), "--name", "Not_Valid")
    assert code == 78
    assert "metadata.name" in output
    assert not file.exists()


@pytest.mark.parametrize(
    ("nodes", "gpus", "says"), [("1", "1", "images per step\n"), ("2", "4", "images per step over all 8 ranks\n")]
)
def test_the_batch_counts_ranks_only_where_there_are_several(tmp_path: Path, nodes: str, gpus: str, says: str) -> None:
    file = tmp_path / "job.yaml"
    assert run("init", str(file), "--nodes", nodes, "--gpus", gpus)[0] == 0
    assert says in file.read_text()
    assert "1 ranks" not in file.read_text()
