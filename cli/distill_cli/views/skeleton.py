"""The commented DistillJob of `distill init`."""

import re
from dataclasses import dataclass

from distill_api.constants import API_VERSION, JOB_NAME_LENGTH, KIND

_FAMILIES = ("yolo26", "yolo11", "yolov8")
STUDENTS = tuple(f"{family}{size}{task}.yaml" for family in _FAMILIES for task in ("", "-seg", "-pose", "-obb")
                 for size in "nsm")  # fmt: skip
"""Architectures that are usual students, the recommended one first."""
_LARGER = {"n": "s", "s": "m", "m": "l", "l": "x", "x": "x"}
_BATCH = 16
"""Images of each rank."""


@dataclass(frozen=True)
class Answers:
    """What the user chose."""

    name: str
    student: str
    teacher: str | None
    data: str
    nodes: int
    gpus: int
    epochs: int
    checkpoints: str
    data_claim: str
    models_claim: str


def teacher_for(student: str) -> str:
    """The recommended teacher: one size larger, of the same family and task."""
    match = re.fullmatch(r"(.*\d)([nsmlx])((?:-\w+)?)\.(?:yaml|pt)", student)
    return f"{match[1]}{_LARGER[match[2]]}{match[3]}.pt" if match else "yolo26s.pt"


def job_name(student: str, data: str) -> str:
    """A name from both files."""
    words = f"{student.rpartition('.')[0]}-{data.rpartition('/')[2].rpartition('.')[0]}".lower()
    name = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
    name = name if name[:1].isalpha() else f"job-{name}"
    return name[:JOB_NAME_LENGTH].strip("-")


def skeleton(answers: Answers) -> str:
    """The YAML file, with a comment for each choice."""
    a = answers
    ranks = a.nodes * max(1, a.gpus)
    models = a.teacher is not None or a.student.endswith(".pt")
    lines = [
        f"apiVersion: {API_VERSION}",
        f"kind: {KIND}",
        "metadata:",
        f"  name: {a.name}  # results go to {a.name}/ on the checkpoints claim",
        "spec:",
        "  student:",
        f"    model: {a.student}  # {_student(a.student)}",
        *_teacher(a.teacher),
        "  dataset:",
        f"    config: {a.data}  # an Ultralytics data set YAML on the data claim",
        *(["  recipe: auto  # what measured best for such a student; status.recipe says what it is"] if a.teacher
          else []),
        "  training:  # Ultralytics' arguments; kubectl explain dj.spec.training lists them",
        f"    epochs: {a.epochs}",
        f"    batch: {_BATCH * ranks}  # {_global(ranks)}",
        "    imgsz: 640",
        f"  nodes: {a.nodes}  # pods, each on a node of its own",
        *(["  elastic:", "    minNodes: 1  # go on with fewer nodes when capacity is short; the result is the same"]
          if a.nodes > 1 else []),
        "  accelerators:",
        f"    perNode: {a.gpus}  # {_gpus(a.gpus)}",
        "  checkpoint:",
        "    intervalSeconds: 60  # a preemption loses nothing, a crash at most this much work",
        "    keep: 3",
        "  volumes:  # existing claims of the job's namespace",
        f"    checkpoints: {{claimName: {a.checkpoints}}}{_shared(a.nodes)}",
        f"    data: {{claimName: {a.data_claim}}}  # mounted read-only",
        *([f"    models: {{claimName: {a.models_claim}}}  # the .pt files; mounted read-only"] if models else []),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _student(student: str) -> str:
    return "a .pt file on the models claim" if student.endswith(".pt") else "an architecture of Ultralytics"


def _teacher(teacher: str | None) -> list[str]:
    if teacher is None:
        return []
    return [
        "  teacher:",
        f"    model: {teacher}  # trained on the same classes; a .pt file on the models claim",
        "    # sha256: …  # 64 hex digits: refuse any other file",
    ]


def _global(ranks: int) -> str:
    return "images per step" if ranks == 1 else f"global: images per step over all {ranks} ranks"


def _gpus(gpus: int) -> str:
    return "nvidia.com/gpu of each pod = ranks of each pod" if gpus else "CPUs, with gloo"


def _shared(nodes: int) -> str:
    return "  # must be ReadWriteMany" if nodes > 1 else ""
