"""How much of /dev/shm a pod gets."""

from typing import Any

import pytest

from distill_api.spec.fields import DistillJobSpec
from distill_api.spec.shared_memory import MARGIN, PREFETCH, needed_bytes

IMAGE = 3 * 640**2
ON_GPUS = {"perNode": 1}


def spec(accelerators: dict[str, Any], ratio: float | None = None, **fields: Any) -> DistillJobSpec:
    claim = {"claimName": "claim"}
    more = {"unlabelled": {"images": "more", "ratio": ratio}} if ratio is not None else {}
    return DistillJobSpec.model_validate(
        {
            "student": {"model": "yolo26n.yaml"},
            "teacher": {"model": "teacher.pt"},
            "dataset": {"config": "data.yaml"} | more,
            "accelerators": accelerators,
            "volumes": dict.fromkeys(("checkpoints", "data", "models"), claim),
            "training": {"batch": 16, "workers": 8} | fields.pop("training", {}),
        }
        | fields
    )


@pytest.mark.parametrize(
    ("job", "images"),
    [
        (spec(ON_GPUS), 16 + 32),
        (spec(ON_GPUS, device="cpu"), 16),
        (spec(ON_GPUS, nodes=2), 8 + 16),
        (spec({"perNode": 4}), 4 * (4 + 8)),
        (spec({"perNode": 0, "processesPerNode": 2}), 2 * 8),
        (spec(ON_GPUS, ratio=0.5), 16 + 8 + 32),
    ],
)
def test_all_batches_of_training_and_validation_fit(job: DistillJobSpec, images: int) -> None:
    assert needed_bytes(job) == MARGIN * images * IMAGE * 8 * (PREFETCH + 1)


def test_the_image_size_is_rounded_up_and_workers_count() -> None:
    assert needed_bytes(spec(ON_GPUS, training={"imgsz": 641})) == needed_bytes(spec(ON_GPUS, training={"imgsz": 704}))
    assert needed_bytes(spec(ON_GPUS, training={"workers": 0})) == 0
    four, eight = (needed_bytes(spec(ON_GPUS, training={"workers": workers})) for workers in (4, 8))
    assert eight == 2 * four
