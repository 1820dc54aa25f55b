"""Training images as they are, for what is measured before the training."""

from __future__ import annotations

import torch
from torch import Tensor

from distill_api.spec.training import Training
from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.datasets.arguments import data_arguments
from distill_trainer.data.datasets.scanned import ScannedDataset

_PIXELS = 64 * 640**2
"""Most pixels of all images together: both models compute them at once."""


def calibration_images(dataset: DatasetInfo, training: Training, *, imgsz: int, stride: int, images: int) -> Tensor:
    """Up to `images` training images, evenly spaced over the data set: [N, C, imgsz, imgsz], in [0, 1].

    Not augmented; of images larger than 640 px there are fewer than 64.
    """
    arguments = data_arguments(training, dataset.task, imgsz)
    source = ScannedDataset(
        dataset,
        dataset.train,
        imgsz=imgsz,
        augment=False,
        hyp=arguments,
        rect=False,
        stride=stride,
        single_cls=training.single_cls,
        prefix="calibration: ",
    )
    count = min(images, len(source), max(1, _PIXELS // imgsz**2))
    return torch.stack([source[number * len(source) // count]["img"] for number in range(count)]).float() / 255
