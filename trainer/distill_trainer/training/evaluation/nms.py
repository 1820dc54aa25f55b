"""Ultralytics' non-maximum suppression (NMS) without its time limit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

from ultralytics.models.yolo.detect import val as detect_val
from ultralytics.utils import nms


@contextmanager
def without_time_limit() -> Iterator[None]:
    """Inside, Ultralytics' validators process every image of a batch, however long that takes.

    By default NMS stops 2 s + 0.05 s per image after its start, and the batch's other images have no detections: on a
    busy machine the metrics, and with them the best weights, would depend on the clock.
    """
    module: Any = detect_val  # the validators of the other tasks call this one's
    module.nms = SimpleNamespace(non_max_suppression=partial(nms.non_max_suppression, max_time_img=math.inf))
    try:
        yield
    finally:
        module.nms = nms
