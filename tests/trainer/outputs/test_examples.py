"""The report's pictures: which images they are of, and what is drawn on them."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from distill_trainer.models.loading import load_checkpoint
from distill_trainer.outputs.report import examples as report_examples
from distill_trainer.outputs.report.agreement import Compared, Detections, agreement, choose, matches
from distill_trainer.outputs.report.examples import examples
from tests.support.models import SUFFIX
from tests.support.ranks.in_process import IMGSZ, Volumes


def detections(*found: tuple[int, float]) -> Detections:
    """Boxes of 10 × 10 pixels: class and left edge of each."""
    boxes = torch.tensor([[left, 0.0, left + 10, 10] for _, left in found]).reshape(-1, 4)
    return Detections(boxes, torch.tensor([float(number) for number, _ in found]), torch.zeros(len(found), 4, 2))


def test_an_object_is_the_same_if_class_and_place_are() -> None:
    teacher = detections((1, 0.0), (2, 50.0), (3, 100.0))
    student = detections((1, 1.0), (7, 50.0), (3, 108.0), (1, 2.0))
    assert matches(student, teacher) == ({0}, {0}), "another class, too far away, and the worse of two"
    assert agreement(student, teacher) == pytest.approx(2 / 7)
    assert agreement(detections(), detections()) is None
    assert agreement(detections(), teacher) == 0


def test_oriented_boxes_overlap_by_their_angle() -> None:
    classes, corners = torch.zeros(1), torch.zeros(1, 4, 2)
    level, turned = (Detections(torch.tensor([[50.0, 50, 80, 10, angle]]), classes, corners) for angle in (0.0, 1.57))
    assert matches(level, level) == ({0}, {0})
    assert matches(level, turned) == (set(), set())


def test_examples_are_those_that_show_most() -> None:
    one, two = detections((1, 0.0)), detections((1, 0.0), (1, 50.0))
    nothing = detections()

    def image(name: str, student: Detections, teacher: Detections, baseline: Detections | None = None) -> Compared:
        found: dict[Any, Detections] = {"student": student, "teacher": teacher}
        return Compared(name, found if baseline is None else found | {"baseline": baseline})

    alike, gained, lost = (
        image("alike", two, two, two),
        image("gained", two, two, one),
        image("lost", nothing, two, two),
    )
    more, blank = image("more", one, one, nothing), image("blank", nothing, nothing, nothing)
    assert choose([alike, gained, lost, more, blank], 2) == ([more, gained], [lost])
    plain = [image("one", one, one), image("two", two, two), image("miss", nothing, one), image("half", one, two)]
    assert choose(plain, 2) == ([plain[1], plain[0]], [plain[2], plain[3]])


def test_a_picture_stands_as_the_models_saw_it(tmp_path: Path) -> None:
    lying, exif = Image.new("RGB", (200, 100), "white"), Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees to show it
    lying.save(tmp_path / "0.jpg", exif=exif)
    corners = torch.tensor([[[0.0, 0.9], [1.0, 0.9], [1.0, 1.0], [0.0, 1.0]]])
    found = Detections(torch.tensor([[0.0, 180.0, 100.0, 200.0]]), torch.zeros(1), corners)
    image = Compared(str(tmp_path / "0.jpg"), {"student": found, "teacher": detections()})
    (example,) = report_examples._within_budget([image], {0: "zero"}).values()
    student, teacher = example.panels
    assert (student.width, student.height) == (150, 300)
    assert student.text == "The student finds zero; 0 of 1 as the teacher does."
    assert teacher.text == "The teacher finds nothing."
    with Image.open(io.BytesIO(student.jpeg)) as picture:
        red, green, _ = picture.getpixel((75, 298))
    assert red > green + 50, "its box, in orange, is at the lower edge"


def test_pictures_have_a_budget_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = []
    for number in range(3):
        Image.effect_noise((200, 100), 80).save(tmp_path / f"{number}.png")
        images.append(Compared(str(tmp_path / f"{number}.png"), dict.fromkeys(("student", "teacher"), detections())))
    names = {0: "zero"}
    (first, *_) = whole = [*report_examples._within_budget(images, names).values()]
    assert len(whole) == 3
    assert [panel.width for panel in first.panels] == [300, 300]
    monkeypatch.setattr(report_examples, "MAX_BYTES", 2 * sum(len(panel.jpeg) for panel in first.panels) + 2000)
    assert len(report_examples._within_budget(images, names)) == 2


@pytest.mark.parametrize("task", SUFFIX)
def test_models_of_every_task_are_compared(task: str, tmp_path: Path) -> None:
    volumes = Volumes(tmp_path, task)
    weights = tmp_path / "models" / volumes.save_model(f"yolo26n{SUFFIX[task]}.yaml")
    images = [str(path) for path in sorted((tmp_path / "data/images/val").iterdir())]
    model, asked = load_checkpoint(weights), []
    found = examples(
        {"student": lambda: model, "teacher": lambda: model}, images, task=task, imgsz=IMGSZ,
        device=torch.device("cpu"), names=volumes.classes, check_stop=lambda: asked.append(task),
    )  # fmt: skip
    assert len(asked) == 2 * len(images)
    assert found.agreement is not None
    assert found.agreement.student == 1.0
    assert found.differs == []
