"""`distill init`: writes a commented DistillJob file."""

import sys
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from distill_api.job import DistillJob, InvalidJob, read_job
from distill_api.reading.mistakes import nearest
from distill_cli.exits import Exit
from distill_cli.views.skeleton import STUDENTS, Answers, job_name, skeleton, teacher_for

T = TypeVar("T", str, int)


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")] = Path("distilljob.yaml"),
    student: Annotated[str | None, typer.Option(help="Student: an architecture (.yaml) or a .pt file.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Teacher, a .pt file; none: train the student alone.", show_default=False)
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data set's YAML file on the data volume.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job; default: student and data set.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs of each node; 0: train on CPUs.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs.")] = 100,
    checkpoints: Annotated[str, typer.Option(metavar="CLAIM", help="Claim for checkpoints and results.")] = "runs",
    data_claim: Annotated[str, typer.Option(metavar="CLAIM", help="Claim of the data set.")] = "data",
    models_claim: Annotated[str, typer.Option(metavar="CLAIM", help="Claim of the .pt files.")] = "models",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented DistillJob with recipe: auto, which validates. In a terminal it asks for what is not given.

    The recommended pair is a student and the next larger model of its family: yolo26n.yaml ← yolo26s.pt.
    """
    if file.exists() and not force:
        _fail(f"{file} exists; use --force to replace it, or name another file", Exit.FAILED)
    student = _ask("student (architecture .yaml, or .pt on the models claim)", student, STUDENTS[0])
    if student.endswith(".yaml") and student not in STUDENTS and (near := nearest(student, STUDENTS)):
        typer.echo(f"note: {student} is none of Ultralytics' usual names; did you mean {' or '.join(near)}?", err=True)
    teacher = _ask("teacher (.pt on the models claim, or none)", teacher, teacher_for(student))
    data = _ask("data set (YAML on the data claim)", data, "coco.yaml")
    answers = Answers(
        name=name or job_name(student, data),
        student=student,
        teacher=None if teacher == "none" else teacher,
        data=data,
        nodes=_ask("nodes", nodes, 1),
        gpus=_ask("GPUs of each node (0: CPUs)", gpus, 1),
        epochs=epochs,
        checkpoints=checkpoints,
        data_claim=data_claim,
        models_claim=models_claim,
    )
    text = skeleton(answers)
    try:
        job = read_job(text)
    except InvalidJob as error:
        for line in str(error).splitlines():
            typer.echo(f"error: {line}", err=True)
        raise typer.Exit(int(Exit.INVALID)) from None
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        _fail(f"{file}: {error.strerror}", Exit.FAILED)
    typer.echo(f"wrote {file}")
    typer.echo(f"next: distill apply {file} --check  (a pod without GPUs first looks at models and data)")
    typer.echo(f"or without a cluster: distill run {file}{_directories(job)}")


def _directories(job: DistillJob) -> str:
    """The options that a local run needs, because it makes no claims: where data and models are."""
    claims = job.spec.volumes.claims(job.metadata.name)
    read = dict.fromkeys(claim for volume, claim in claims.items() if volume != "checkpoints")
    return "".join(f" --volume {claim}=DIR" for claim in read)


def _ask(question: str, given: T | None, default: T) -> T:
    """The option, or what the user answers; the default where nobody can be asked."""
    if given is not None:
        return given
    if not sys.stdin.isatty():
        return default
    answer: T = typer.prompt(question, default=default, type=type(default))
    return answer


def _fail(message: str, code: Exit) -> None:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(int(code))
