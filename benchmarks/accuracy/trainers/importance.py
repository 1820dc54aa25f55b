"""How much a teacher's channels matter, by what they do on training images: beside |γ|, which the trainer looks at.

The trainer's own `importance` reads the teacher's weights alone. These two need images and a pass over them; whether
they are worth that is what the arms `inherit-activations` and `inherit-taylor` measure.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

IMAGES, BATCH = 128, 16


def activations(output: Tensor) -> Tensor:
    """Mean of |SiLU| of each channel of a BatchNorm's output [B, C, H, W]."""
    return nn.functional.silu(output.detach()).abs().mean((0, 2, 3))


def taylor(output: Tensor) -> Tensor:
    """How much the loss would change without the channel, to first order: |Σ activation · gradient|, mean over images
    (Molchanov et al., 2017).
    """
    if output.grad is None:  # of a branch that has no loss
        return torch.zeros(output.shape[1])
    return (output.detach() * output.grad).sum((2, 3)).abs().mean(0)


def scores(teacher: Any, config: Path, arguments: Any, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The score of each channel by the name of its BatchNorm, over the first IMAGES training images, not augmented."""
    from ultralytics.data import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    model = deepcopy(teacher).float().train().requires_grad_(True)
    model.args = arguments
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    outputs: dict[str, Tensor] = {}
    for name, module in norms.items():
        module.eval()
        module.register_forward_hook(_keep(outputs, name))
    data = check_det_dataset(str(config), autodownload=False)
    images = build_yolo_dataset(arguments, data["train"], BATCH, data, mode="val")
    found = {name: torch.zeros(module.num_features) for name, module in norms.items()}
    for start in range(0, min(IMAGES, len(images)), BATCH):
        batch = images.collate_fn([images[number] for number in range(start, min(start + BATCH, len(images)))])
        model.zero_grad()
        model(batch | {"img": batch["img"].float() / 255})[0].sum().backward()
        for name, output in outputs.items():
            found[name] += of(output)
    return found


def _keep(outputs: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
    def hook(_: nn.Module, __: Any, output: Tensor) -> None:
        output.retain_grad()
        outputs[name] = output

    return hook


def use(of: Callable[[Tensor], Tensor]) -> None:
    """Let the trainer of this process choose channels by these scores where the job says `channels: importance`."""
    from distill_trainer.models import setup
    from distill_trainer.models.inherit.trace import Slice, Trace
    from distill_trainer.training import build

    prepare, inherit, batchnorm = setup.prepare, setup.inherit, Trace.batchnorm
    place: dict[str, Any] = {}

    def prepared(spec: Any, directories: Any, *others: Any, **named: Any) -> Any:
        place["config"] = Path(directories.data) / spec.dataset.config
        return prepare(spec, directories, *others, **named)

    def inherited(student: Any, teacher: Any, spec: Any) -> Any:
        place["scores"] = scores(teacher, place["config"], student.args, of)
        return inherit(student, teacher, spec)

    def scored(trace: Trace, name: str, *others: Any) -> None:
        batchnorm(trace, name, *others)
        at, found = next((n, s) for n, s in enumerate(trace.slices) if s.name == f"{name}.weight")
        trace.slices[at] = Slice(**vars(found) | {"score": place["scores"][name]})

    build.prepare, setup.inherit = prepared, inherited
    Trace.batchnorm = scored  # type: ignore[method-assign]
