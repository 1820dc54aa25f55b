"""spec.export and spec.report: what a run leaves besides its weights."""

from typing import Annotated, Literal

from pydantic import Field

from distill_api.base import Model

RelativePath = Annotated[str, Field(min_length=1, max_length=512)]


class Export(Model):
    """Additional formats of the best weights, written next to weights/best.pt after the training."""

    formats: Annotated[list[Literal["onnx", "torchscript"]], Field(max_length=2)] = []
    """onnx: weights/best.onnx. torchscript: weights/best.torchscript. Both are in fp32 at training.imgsz, as in
    Ultralytics' export."""
    dynamic: bool = False
    """Allow any number and size of images (onnx; torchscript always does)."""
    simplify: bool = True
    """Simplify the ONNX graph."""
    nms: bool | None = None
    """Unset: the model's raw output. true: with non-maximum suppression. false: the head that does not need it (YOLO26,
    YOLOv10)."""


class Report(Model):
    """What the report compares the student with, besides the teacher."""

    baseline: RelativePath | None = None
    """Another run, for example one without a teacher: the name of a job whose results are on the checkpoints volume, or
    a .pt file on the checkpoints or models volume."""
