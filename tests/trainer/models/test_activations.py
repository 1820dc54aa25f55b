"""student.inherit: channels that tell the others, and weights that are fitted to what the teacher's layers give."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill_trainer.models.inherit.activations import Locations, covariances
from distill_trainer.models.inherit.channels import Channels, Group, Slot
from distill_trainer.models.inherit.selection import MODES
from distill_trainer.models.inherit.trace import Slice
from distill_trainer.models.inherit.weights import Inheritance
from tests.support.models import SUFFIX, build
from tests.support.slices import deaden, outputs, randomize

PAIRS = [
    *(("yolo26", "ns", task) for task in SUFFIX),
    ("yolo11", "ns", "obb"),
    ("yolov8", "ns", "segment"),
    ("yolov9", "ts", "detect"),
    ("yolo12", "ns", "detect"),
]


def images(count: int = 8, side: int = 64, seed: int = 4) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def pair(family: str, sizes: str, task: str) -> list[Any]:
    models = [build(f"{family}{size}{SUFFIX[task]}.yaml", task, seed=number) for number, size in enumerate(sizes)]
    for number, model in enumerate(models):
        randomize(model, number + 1)
    return models


@pytest.mark.parametrize(("family", "sizes", "task"), PAIRS)
def test_what_the_teacher_computes_survives_if_only_dead_channels_go(family: str, sizes: str, task: str) -> None:
    """No channel that is alive is left out for one that tells nothing, and fitting finds nothing to mend."""
    student, teacher = pair(family, sizes, task)
    deaden(student, teacher, 3)
    inherited = Inheritance.of(student, teacher).copy("activations", images())
    assert inherited.fitted is not None
    assert inherited.fitted.copied > 0.999
    assert inherited.fitted.fitted > 0.999
    (ours, mine), (theirs, other) = outputs(student, images(2, seed=5)), outputs(teacher, images(2, seed=5))
    ours += [feature[:, channels] for feature, (channels, _) in zip(mine, inherited.neck, strict=True)]
    theirs += [feature[:, channels] for feature, (_, channels) in zip(other, inherited.neck, strict=True)]
    assert max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True)) < 0.02


@pytest.mark.parametrize(
    ("family", "sizes", "task"), [("yolo26", "ns", "segment"), ("yolov8", "ns", "pose"), ("yolo12", "ns", "detect")]
)
def test_a_fitted_student_is_nearer_to_its_teacher_than_a_copied_slice(family: str, sizes: str, task: str) -> None:
    """Also on images that it was not fitted on."""
    student, teacher = pair(family, sizes, task)
    copied = deepcopy(student)
    inherited = Inheritance.of(student, teacher).copy("activations", images(32))
    Inheritance.of(copied, teacher).copy("index")
    assert inherited.fitted is not None
    assert inherited.fitted.fitted > inherited.fitted.copied
    assert inherited.fitted.images == 32
    (ours, slices, theirs) = (features(model, images(8, seed=6)) for model in (student, copied, teacher))
    near = [unexplained(a, b) for a, b in zip(ours, theirs, strict=True)]
    far = [unexplained(a, b) for a, b in zip(slices, theirs, strict=True)]
    assert sum(near) < 0.8 * sum(far)


def features(model: Any, given: Tensor) -> list[Tensor]:
    """By level, the class logits of the raw head: [locations, classes]."""
    model.train()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    with torch.no_grad():
        found = model(given)
    found = found.get("one2many", found)
    return [found["scores"].transpose(1, 2).flatten(0, 1)]


def unexplained(ours: Tensor, theirs: Tensor) -> float:
    """Part of the variance of `theirs` [locations, channels] that no line through `ours` explains; mean of channels."""
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    slope = (ours * theirs).sum(0) / ours.square().sum(0).clamp_min(1e-12)
    return float(((theirs - slope * ours).square().sum(0) / theirs.square().sum(0).clamp_min(1e-12)).mean())


def test_fitting_changes_nothing_of_the_teacher_and_restores_modes() -> None:
    student, teacher = pair("yolo26", "ns", "detect")
    before = deepcopy(teacher.state_dict())
    teacher.eval()
    student.train()
    student.model[3].eval()
    Inheritance.of(student, teacher).copy("activations", images(2))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(part.training for part in teacher.modules())
    assert student.training
    assert not student.model[3].training
    assert not any(part._forward_hooks or part._forward_pre_hooks for m in (student, teacher) for part in m.modules())


def test_the_same_models_and_images_give_the_same_weights() -> None:
    """Whatever was drawn before, and without drawing anything."""
    teacher = pair("yolo26", "ns", "detect")[1]
    found = []
    for seed in (0, 1):
        student = build("yolo26n.yaml")
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        Inheritance.of(student, teacher).copy("activations", images(2))
        assert torch.equal(torch.get_rng_state(), state)
        found.append(student.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize(
    ("covariance", "count", "selected"),
    [
        ([[1, 0, 0], [0, 4, 0], [0, 0, 2]], 2, [1, 2]),
        ([[1, 1, 0], [1, 1, 0], [0, 0, 0.1]], 2, [0, 2]),  # the second tells nothing that the first does not
        ([[3, 0, 0], [0, 2, 2], [0, 2, 2]], 1, [1]),  # it tells two of them
        ([[0, 0], [0, 0]], 1, [0]),
    ],
)
def test_channels_that_span_the_others_are_selected(
    covariance: list[list[float]], count: int, selected: list[int]
) -> None:
    assert MODES["activations"](count, torch.tensor(covariance, dtype=torch.float64)).tolist() == selected


def test_patches_are_what_a_convolution_reads() -> None:
    for kernel, stride, padding, dilation in ((3, 2, 1, 1), (1, 1, 0, 1), (5, 1, 4, 2)):
        convolution = nn.Conv2d(4, 6, kernel, stride, padding, dilation, bias=False)
        given = torch.rand(3, 4, 9, 11)
        output = convolution(given)
        locations = Locations.of(output)
        patches = locations.patches(convolution, given)
        assert patches.shape == (output.numel() // 6, 4, kernel**2)
        assert torch.allclose(patches.flatten(1) @ convolution.weight.flatten(1).T, locations.read(output), atol=1e-5)


def test_many_locations_are_sampled_over_all_images() -> None:
    locations = Locations.of(torch.empty(40, 1, 100, 100))
    assert len(locations.image) == 16384
    assert len(locations.image.unique()) == 40
    for indices in (locations.row, locations.column):
        assert (int(indices.min()), int(indices.max())) == (0, 99)


def test_heads_of_attention_are_told_apart_by_all_their_channels() -> None:
    """A unit of two channels varies by the sum of both."""
    group = Group(1, 2)
    teacher = nn.Sequential(build("yolo26n.yaml").model[0])
    layer: Any = teacher[0]
    channels = Channels((Slot(group, 0, 8),), 16)
    part = Slice("0.conv.weight", layer.conv.weight, layer.conv.weight, (channels,))
    found = covariances([part], teacher, images(2))[id(group)]
    with torch.no_grad():
        output = layer.eval()(images(2)).transpose(0, 1).flatten(1)
    whole = torch.cov(output)
    one, two = whole[:8, :8].trace(), whole[8:, 8:].trace()
    assert float(found[0, 0] / found[1, 1]) == pytest.approx(float(one / two), rel=1e-3)
