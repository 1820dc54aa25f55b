"""Pictures of validation images: what the student finds beside what its teacher and the baseline find."""

from __future__ import annotations

import base64
import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.models.yolo.obb import OBBPredictor
from ultralytics.models.yolo.pose import PosePredictor
from ultralytics.models.yolo.segment import SegmentationPredictor

from distill_trainer.outputs.fonts import font_file
from distill_trainer.outputs.report.agreement import Compared, Detections, choose, matches, mean_agreement
from distill_trainer.outputs.report.report import Agreement, ModelRole

IMAGES, SECONDS = 48, 30.0
"""At most so many images are compared, and fewer if the teacher, which is the first, needs more time."""
SHOWN, MAX_BYTES = 4, 600_000
"""Images of each kind in the report, and bytes of all pictures together."""
SIDE = 300
"""Pixels of a picture's longer side."""
SAME, OTHER = "#0a7a33", "#c2410c"
"""Colours of detections that a model shares with the teacher, in the teacher's picture with the student; of others."""
_PREDICTORS = {
    "detect": DetectionPredictor,
    "segment": SegmentationPredictor,
    "pose": PosePredictor,
    "obb": OBBPredictor,
}


@dataclass(frozen=True)
class Panel:
    """What one model finds in an image."""

    role: ModelRole
    jpeg: bytes
    width: int
    height: int
    text: str
    """The same in words."""

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


@dataclass(frozen=True)
class Example:
    """One image."""

    name: str
    agreement: Mapping[ModelRole, float]
    """How far each model agrees with the teacher."""
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Examples:
    """The pictures of a report."""

    agreement: Agreement | None = None
    agrees: Sequence[Example] = field(default_factory=list)
    """Images in which the student agrees with its teacher."""
    differs: Sequence[Example] = field(default_factory=list)
    """Images in which it does not."""


def examples(
    models: Mapping[ModelRole, Callable[[], Any]],
    images: Sequence[str],
    *,
    task: str,
    imgsz: int,
    device: torch.device,
    names: Mapping[int, str],
    check_stop: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
) -> Examples:
    """Compare what student, teacher and, if there is one, baseline find in some validation images.

    `models` loads a model by its role. They predict as Ultralytics' `predict` does by default, with a confidence of at
    least 0.25, but with one class for each object (agnostic_nms). `check_stop` is called before each image, and may
    raise.
    """
    step = -(-len(images) // IMAGES) or 1
    paths = [images[number] for number in range(0, len(images), step)]
    found: dict[ModelRole, list[Detections]] = {}
    for role in sorted(models, key=lambda role: role != "teacher"):
        started, found[role] = clock(), []
        for detections in _predict(models[role](), paths, task, imgsz, device, check_stop):
            found[role].append(detections)
            if role == "teacher" and clock() - started > SECONDS:
                break
        paths = paths[: len(found["teacher"])]
    compared = [Compared(path, {role: found[role][row] for role in models}) for row, path in enumerate(paths)]
    agrees, differs = choose(compared, SHOWN)
    drawn = _within_budget([*_alternating(agrees, differs)], names)
    student = mean_agreement(compared, "student")
    of_baseline = mean_agreement(compared, "baseline") if "baseline" in models else None
    return Examples(
        None if student is None else Agreement(images=len(compared), student=student, baseline=of_baseline),
        [drawn[image.image] for image in agrees if image.image in drawn],
        [drawn[image.image] for image in differs if image.image in drawn],
    )


def _predict(
    model: Any, paths: Sequence[str], task: str, imgsz: int, device: torch.device, check_stop: Callable[[], None]
) -> Iterator[Detections]:
    overrides = {"task": task, "mode": "predict", "imgsz": imgsz, "device": device, "verbose": False, "save": False}
    predictor = _PREDICTORS[task](overrides=overrides | {"agnostic_nms": True})
    for path in paths:
        check_stop()
        (result,) = predictor(source=path, model=model)
        yield _detections(result)


def _detections(result: Any) -> Detections:
    if result.obb is not None:
        return Detections(result.obb.xywhr.cpu(), result.obb.cls.cpu(), result.obb.xyxyxyxyn.cpu())
    corners = result.boxes.xyxyn.cpu()[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    return Detections(result.boxes.xyxy.cpu(), result.boxes.cls.cpu(), corners)


def _alternating(one: Sequence[Compared], other: Sequence[Compared]) -> Iterator[Compared]:
    for row in range(max(len(one), len(other))):
        yield from [*one[row : row + 1], *other[row : row + 1]]


def _within_budget(chosen: Sequence[Compared], names: Mapping[int, str]) -> dict[str, Example]:
    """The examples by image, as long as their pictures have at most `MAX_BYTES` together."""
    drawn: dict[str, Example] = {}
    left = MAX_BYTES
    for image in chosen:
        example = _example(image, names)
        left -= sum(len(panel.jpeg) for panel in example.panels)
        if left < 0:
            break
        drawn[image.image] = example
    return drawn


def _example(image: Compared, names: Mapping[int, str]) -> Example:
    order: Sequence[ModelRole] = ("student", "teacher", "baseline")
    with Image.open(image.image) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")  # as Ultralytics reads it
    scale = SIDE / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    panels = []
    for role in (role for role in order if role in image.found):
        found, other = image.found[role], image.found["student" if role == "teacher" else "teacher"]
        same = matches(found, other)[0]
        jpeg = _jpeg(_drawn(picture, found, same, names))
        panels.append(Panel(role, jpeg, picture.width, picture.height, _words(role, found, same, names)))
    values = {role: value for role in image.found if (value := image.with_teacher(role)) is not None}
    return Example(Path(image.image).name, values, panels)


def _words(role: ModelRole, found: Detections, same: set[int], names: Mapping[int, str]) -> str:
    counts = Counter(names[int(number)] for number in found.classes)
    objects = ", ".join(f"{name} × {count}" if count > 1 else name for name, count in counts.items()) or "nothing"
    other = "student" if role == "teacher" else "teacher"
    return f"The {role} finds {objects}" + (f"; {len(same)} of {len(found)} as the {other} does." if found else ".")


def _drawn(picture: Image.Image, found: Detections, same: set[int], names: Mapping[int, str]) -> Image.Image:
    picture = picture.copy()
    draw, font = ImageDraw.Draw(picture), ImageFont.truetype(str(font_file()), 18)
    size = np.array(picture.size)
    for number in reversed(range(len(found))):  # the most confident on top
        colour = SAME if number in same else OTHER
        corners = [(float(x), float(y)) for x, y in found.corners[number].numpy() * size]
        draw.line([*corners, corners[0]], fill=colour, width=4, joint="curve")
        text = ("" if number in same else "≠ ") + names[int(found.classes[number])]
        left, top = min(corners, key=lambda corner: (corner[1], corner[0]))
        width, height = draw.textbbox((0, 0), text, font=font)[2:]
        left = min(max(0.0, left), max(0.0, picture.width - width - 6))
        top = max(0.0, top - height - 3)
        draw.rectangle((left, top, left + width + 6, top + height + 3), fill=colour)
        draw.text((left + 3, top + 1), text, fill="white", font=font)
    return picture


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=78, optimize=True)
    return stream.getvalue()
