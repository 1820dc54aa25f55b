"""Each distillation loss against its formula, written out with loops over plain numbers."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import get_args

import pytest
import torch
from torch import Tensor
from ultralytics.utils.metrics import probiou
from ultralytics.utils.tal import dist2rbox

from distill_api.spec.fields import Distillation
from distill_trainer.training.distillation.features import Keypoints, Masks, ModelOutput, PoseShape, model_output
from distill_trainer.training.distillation.losses.cwd import cwd
from distill_trainer.training.distillation.losses.iou import FLOOR, iou
from distill_trainer.training.distillation.losses.logit import logit
from distill_trainer.training.distillation.losses.oks import oks
from distill_trainer.training.distillation.losses.pkd import pkd
from distill_trainer.training.distillation.losses.registry import LOSSES, Signal
from distill_trainer.training.distillation.losses.sl2 import sl2
from distill_trainer.training.distillation.losses.spkd import spkd
from distill_trainer.training.distillation.task import DistillTask, Term
from distill_trainer.training.distillation.teacher import Teacher
from distill_trainer.training.distillation.terms import TASK_OF
from tests.support.models import CPU, build, preprocessed, shard_batch, teach

BATCH, CHANNELS, CLASSES, SIZES = 2, 3, 4, ((3, 2), (2, 1))
LOCATIONS = sum(height * width for height, width in SIZES)
PROTOTYPES, MASK_SIZE = 2, (6, 4)
KEYPOINTS, SIGMAS = 2, torch.tensor([0.3, 0.1])
BRANCH_WEIGHTS = (0.8, 0.2)
EPSILON = 1e-5  # BatchNorm's


def view(seed: int, branches: int = 2, scale: float = 1.0) -> ModelOutput:
    random = torch.Generator().manual_seed(seed)

    def maps(channels: int) -> tuple[Tensor, ...]:
        return tuple(scale * torch.randn(BATCH, channels, *size, generator=random) for size in SIZES)

    def boxes() -> Tensor:
        return 0.2 + 3 * torch.rand(BATCH, 4, LOCATIONS, generator=random)

    def keypoints() -> Keypoints:
        places, visible = torch.randn(BATCH, KEYPOINTS, 3, LOCATIONS, generator=random).split((2, 1), dim=2)
        return Keypoints(places, visible.squeeze(2))

    def masks() -> Masks:
        coefficients = torch.randn(BATCH, PROTOTYPES, LOCATIONS, generator=random)
        return Masks(coefficients, torch.randn(BATCH, PROTOTYPES, *MASK_SIZE, generator=random))

    features, logits = maps(CHANNELS), tuple(maps(CLASSES) for _ in range(branches))
    return ModelOutput(
        features,
        logits,
        tuple(boxes() for _ in range(branches)),
        tuple(keypoints() for _ in range(branches)),
        tuple(masks() for _ in range(branches)),
        BRANCH_WEIGHTS[:branches],
        SIGMAS,
    )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def places(feature: Tensor) -> list[tuple[int, int, int]]:
    images, _, height, width = feature.shape
    return [(b, y, x) for b in range(images) for y in range(height) for x in range(width)]


def standard_channel(feature: Tensor, channel: int) -> dict[tuple[int, int, int], float]:
    values = {(b, y, x): float(feature[b, channel, y, x]) for b, y, x in places(feature)}
    mean, variance = statistics.fmean(values.values()), statistics.pvariance(values.values())
    return {place: (value - mean) / math.sqrt(variance + EPSILON) for place, value in values.items()}


def plain_sl2(student: ModelOutput, teacher: ModelOutput) -> float:
    total = 0.0
    for level, (ours, theirs) in enumerate(zip(student.features, teacher.features, strict=True)):
        above, below = 0.0, 0.0
        for b, y, x in places(ours):
            means = [
                statistics.fmean(float(branch[level][b, c, y, x]) for branch in teacher.logits) for c in range(CLASSES)
            ]
            weight = max(map(sigmoid, means))
            below += weight * CHANNELS
            for c in range(CHANNELS):
                above += weight * float(ours[b, c, y, x] - theirs[b, c, y, x]) ** 2
        total += above / below
    return total


def plain_cwd(student: ModelOutput, teacher: ModelOutput, temperature: float = 1.0) -> float:
    def distribution(standard: dict[tuple[int, int, int], float], image: int) -> list[float]:
        exponentials = [math.exp(value / temperature) for (b, _, _), value in standard.items() if b == image]
        return [value / sum(exponentials) for value in exponentials]

    total = 0.0
    for ours, theirs in zip(student.features, teacher.features, strict=True):
        divergence = 0.0
        for c in range(CHANNELS):
            our_channel, their_channel = standard_channel(ours, c), standard_channel(theirs, c)
            for b in range(BATCH):
                for p, q in zip(distribution(their_channel, b), distribution(our_channel, b), strict=True):
                    divergence += p * math.log(p / q)
        total += temperature**2 * divergence / (BATCH * CHANNELS)
    return total


def plain_pkd(student: ModelOutput, teacher: ModelOutput) -> float:
    """By its meaning: 1 - r, the mean over channels. BatchNorm's epsilon is why the comparison is not exact."""
    total = 0.0
    for ours, theirs in zip(student.features, teacher.features, strict=True):
        correlations = [
            statistics.correlation(
                [float(ours[b, c, y, x]) for b, y, x in places(ours)],
                [float(theirs[b, c, y, x]) for b, y, x in places(theirs)],
            )
            for c in range(CHANNELS)
        ]
        total += 1 - statistics.fmean(correlations)
    return total


def plain_spkd(student: ModelOutput, teacher: ModelOutput) -> float:
    total = 0.0
    for level, (ours, theirs) in enumerate(zip(student.features, teacher.features, strict=True)):
        where = places(ours)
        weights = {}
        for b, y, x in where:
            means = [statistics.fmean(float(br[level][b, c, y, x]) for br in teacher.logits) for c in range(CLASSES)]
            weights[b, y, x] = sigmoid(max(means))
        whole = sum(weights.values())
        correlations = []
        for c in range(CHANNELS):
            first, second = ({p: float(f[p[0], c, p[1], p[2]]) for p in where} for f in (ours, theirs))
            m1, m2 = (sum(weights[p] * v[p] for p in where) / whole for v in (first, second))
            products = [(first[p] - m1, second[p] - m2, weights[p] / whole) for p in where]
            v1, v2 = sum(w * a * a for a, _, w in products), sum(w * b * b for _, b, w in products)
            covariance = sum(w * a * b for a, b, w in products)
            correlations.append((covariance + EPSILON) / math.sqrt((v1 + EPSILON) * (v2 + EPSILON)))
        total += 1 - statistics.fmean(correlations)
    return total


def plain_logit(student: ModelOutput, teacher: ModelOutput) -> float:
    return statistics.fmean(logit_by_branch(student, teacher))


def plain_bckd(student: ModelOutput, teacher: ModelOutput) -> float:
    losses = logit_by_branch(student, teacher)
    return sum(weight * loss for weight, loss in zip(BRANCH_WEIGHTS, losses, strict=False))


def plain_iou(student: ModelOutput, teacher: ModelOutput) -> float:
    total = 0.0
    for weight, ours, theirs, logits in zip(BRANCH_WEIGHTS, student.boxes, teacher.boxes, teacher.logits, strict=False):
        above, below = 0.0, 0.0
        scores = torch.cat([level.flatten(2) for level in logits], dim=2)
        for b in range(BATCH):
            for n in range(ours.shape[2]):
                score = sigmoid(float(scores[b, :, n].max()))
                if score > 0.05:
                    above += score * (1 - plain_ciou(ours[b, :, n].tolist(), theirs[b, :, n].tolist()))
                    below += score
        total += weight * above / max(below, 1.0)
    return total


def plain_oks(student: ModelOutput, teacher: ModelOutput, *, visibility: bool = True) -> float:
    total = 0.0
    parts = zip(BRANCH_WEIGHTS, student.keypoints, teacher.keypoints, teacher.boxes, teacher.logits, strict=False)
    for weight, ours, theirs, boxes, logits in parts:
        above, below = 0.0, 0.0
        scores = torch.cat([level.flatten(2) for level in logits], dim=2)
        for b in range(BATCH):
            for n in range(LOCATIONS):
                score = sigmoid(float(scores[b, :, n].max()))
                if score <= 0.05:
                    continue
                left, top, right, bottom = boxes[b, :, n].tolist()
                for k in range(KEYPOINTS):
                    distance = math.dist(ours.places[b, k, :, n].tolist(), theirs.places[b, k, :, n].tolist())
                    e = distance**2 / ((2 * float(SIGMAS[k])) ** 2 * (left + right) * (top + bottom) * 2)
                    seen = sigmoid(float(theirs.visible[b, k, n])) if visibility else 1.0
                    above += score * seen * (1 - math.exp(-e))
                below += score
        total += weight * above / (KEYPOINTS * max(below, 1.0))
    return total


def plain_mask(student: ModelOutput, teacher: ModelOutput) -> float:
    total = 0.0
    parts = zip(BRANCH_WEIGHTS, student.masks, teacher.masks, teacher.boxes, teacher.logits, strict=False)
    where = [(size, y, x) for size in SIZES for y in range(size[0]) for x in range(size[1])]
    for weight, ours, theirs, boxes, logits in parts:
        above, below = 0.0, 0.0
        scores = torch.cat([level.flatten(2) for level in logits], dim=2)
        for b in range(BATCH):
            for n, (size, row, column) in enumerate(where):
                score = sigmoid(float(scores[b, :, n].max()))
                if score <= 0.05:
                    continue
                high, wide = MASK_SIZE[0] / size[0], MASK_SIZE[1] / size[1]
                left, top, right, bottom = boxes[b, :, n].tolist()
                found = []
                for y in range(MASK_SIZE[0]):
                    for x in range(MASK_SIZE[1]):
                        across = (column + 0.5 - left) * wide <= x + 0.5 < (column + 0.5 + right) * wide
                        down = (row + 0.5 - top) * high <= y + 0.5 < (row + 0.5 + bottom) * high
                        if across and down:
                            p, q = (
                                sigmoid(
                                    sum(float(m.coefficients[b, i, n] * m.prototypes[b, i, y, x]) for i in range(2))
                                )
                                for m in (ours, theirs)
                            )
                            found.append(q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)))
                above += score * sum(found) / max(len(found), 1)
                below += score
        total += weight * above / max(below, 1.0)
    return total


def plain_ciou(first: list[float], second: list[float]) -> float:
    (l1, t1, r1, b1), (l2, t2, r2, b2) = first, second
    inside = (min(l1, l2) + min(r1, r2)) * (min(t1, t2) + min(b1, b2))
    w1, h1, w2, h2 = l1 + r1, t1 + b1, l2 + r2, t2 + b2
    overlap = inside / (w1 * h1 + w2 * h2 - inside)
    diagonal = (max(l1, l2) + max(r1, r2)) ** 2 + (max(t1, t2) + max(b1, b2)) ** 2
    distance = ((r1 - l1 - r2 + l2) ** 2 + (b1 - t1 - b2 + t2) ** 2) / 4
    shape = 4 / math.pi**2 * (math.atan(w2 / h2) - math.atan(w1 / h1)) ** 2
    return overlap - distance / diagonal - shape * shape / (shape - overlap + 1 + 1e-7)


def logit_by_branch(student: ModelOutput, teacher: ModelOutput) -> list[float]:
    means = []
    for our_branch, their_branch in zip(student.logits, teacher.logits, strict=False):
        above, objects = 0.0, 0.0
        for ours, theirs in zip(our_branch, their_branch, strict=True):
            for b, y, x in places(ours):
                objects += max(sigmoid(float(theirs[b, c, y, x])) for c in range(CLASSES))
                for c in range(CLASSES):
                    p, q = sigmoid(float(ours[b, c, y, x])), sigmoid(float(theirs[b, c, y, x]))
                    above += abs(p - q) * -(q * math.log(p) + (1 - q) * math.log(1 - p))
        means.append(above / max(objects, 1.0))
    return means


PLAIN: dict[str, Callable[[ModelOutput, ModelOutput], float]] = {
    "sl2": plain_sl2,
    "cwd": plain_cwd,
    "pkd": plain_pkd,
    "spkd": plain_spkd,
    "logit": plain_logit,
    "bckd": plain_bckd,
    "iou": plain_iou,
    "oks": plain_oks,
    "mask": plain_mask,
}


def test_every_loss_of_the_contract_exists_and_has_a_reference() -> None:
    assert set(get_args(Distillation.model_fields["loss"].annotation)) < set(LOSSES) == set(PLAIN)


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_formula(name: str, branches: int) -> None:
    student, teacher = view(1, branches), view(2, branches)
    expected = PLAIN[name](student, teacher)
    assert expected > 0.01
    assert float(LOSSES[name].compare(student, teacher)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_cwd_has_a_temperature(temperature: float) -> None:
    expected = plain_cwd(view(1), view(2), temperature)
    assert float(cwd(view(1), view(2), temperature)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_that_sees_the_same_has_nothing_to_learn(name: str) -> None:
    assert float(LOSSES[name].compare(view(3), view(3))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("compare", [cwd, pkd, spkd])
def test_normalised_losses_do_not_see_the_scale_of_features(
    compare: Callable[[ModelOutput, ModelOutput], Tensor],
) -> None:
    student, teacher = view(1), view(2)
    louder = student._replace(features=tuple(100 * feature + 7 for feature in student.features))
    assert float(compare(louder, teacher)) == pytest.approx(float(compare(student, teacher)), rel=1e-3)
    assert float(sl2(louder, teacher)) > 10 * float(sl2(student, teacher))


def test_a_branch_that_the_teacher_lacks_is_not_taught() -> None:
    student, teacher = view(1, branches=2), view(2, branches=1)
    alone = student._replace(logits=student.logits[:1])
    assert torch.equal(logit(student, teacher), logit(alone, teacher))


@pytest.mark.parametrize("name", LOSSES)
def test_a_teacher_in_bf16_gives_a_loss_in_fp32(name: str) -> None:
    whole = view(2)

    def rounded(levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(level.bfloat16() for level in levels)

    logits = tuple(rounded(branch) for branch in whole.logits)
    teacher = whole._replace(features=rounded(whole.features), logits=logits)
    loss = LOSSES[name].compare(view(1), teacher)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(LOSSES[name].compare(view(1), whole)), rel=0.05)


def test_keypoints_without_visibility_count_alike() -> None:
    def blind(output: ModelOutput) -> ModelOutput:
        return output._replace(keypoints=tuple(one._replace(visible=None) for one in output.keypoints))

    student, teacher = view(1), view(2)
    expected = plain_oks(student, teacher, visibility=False)
    assert float(oks(blind(student), blind(teacher))) == pytest.approx(expected, rel=1e-4)


def test_oriented_boxes_are_compared_by_their_probabilistic_overlap() -> None:
    """Each box is decoded at its location and compared with Ultralytics' own function, one by one."""
    turned = [
        view(seed)._replace(boxes=tuple(torch.cat([b, b[:, :1] - 1], 1) for b in view(seed).boxes)) for seed in (1, 2)
    ]
    student, teacher = turned
    expected = 0.0
    for weight, ours, theirs, logits in zip(BRANCH_WEIGHTS, student.boxes, teacher.boxes, teacher.logits, strict=True):
        above, below = 0.0, 0.0
        scores = torch.cat([level.flatten(2) for level in logits], dim=2).amax(1).sigmoid()
        for b in range(BATCH):
            for n in range(ours.shape[2]):
                at = torch.tensor([[n + 0.5, 7.5]])
                first, second = (
                    torch.cat([dist2rbox(box[None, :4], box[None, 4:], at), box[None, 4:]], dim=1)
                    for box in (ours[b, :, n], theirs[b, :, n])
                )
                above += float(scores[b, n] * (1 - probiou(first, second, floor=FLOOR)))
                below += float(scores[b, n])
        expected += weight * above / max(below, 1.0)
    assert float(scores.min()) > 0.05
    assert float(iou(student, teacher)) == pytest.approx(expected, rel=1e-3)
    assert float(iou(student, student)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("compare", [cwd, pkd])
def test_a_channel_of_one_value_has_no_say_but_a_gradient(
    compare: Callable[[ModelOutput, ModelOutput], Tensor],
) -> None:
    ours = torch.randn(1, CHANNELS, 1, 1, requires_grad=True)
    loss = compare(ModelOutput((ours,), ()), ModelOutput((torch.randn(1, CHANNELS, 1, 1),), ()))
    loss.backward()
    assert float(loss.detach()) == 0
    assert ours.grad is not None
    assert not ours.grad.any()


@pytest.mark.parametrize(
    "name",
    ["yolo26n.yaml", "yolov8n.yaml", "yolo26n-obb.yaml", "yolov8n-obb.yaml", "yolo26n-pose.yaml", "yolov8n-pose.yaml",
     "yolo26n-seg.yaml", "yolov8n-seg.yaml"],
)  # fmt: skip
def test_student_and_teacher_see_the_same_in_the_same_model(name: str) -> None:
    """The student's view is read off its predictions, the teacher's from a cut copy: both must mean the same."""
    task = next((task for task in ("pose", "segment") if task[:3] in name), "detect")
    model = teach(build(name, task))
    images = preprocessed(shard_batch(2, task))["img"]
    needs = {Signal.CLASS, Signal.BOX, *(signal for signal, alone in TASK_OF.items() if alone == task)}
    theirs = Teacher(model, CPU, torch.float32, needs).infer(images)
    head = model.model[-1]
    head.training = True  # raw predictions, while every BatchNorm still uses its running statistics
    with torch.no_grad():
        pose = PoseShape.of(head) if task == "pose" else None
        ours = model_output(model(images), boxes=True, pose=pose, masks=task == "segment")
    assert (bool(ours.keypoints), bool(ours.masks)) == (task == "pose", task == "segment")
    assert len(ours.logits) == len(theirs.logits) == (2 if name.startswith("yolo26") else 1)
    for mine, other in zip(
        (ours.features, ours.boxes, *ours.logits, *ours.keypoints, *ours.masks),
        (theirs.features, theirs.boxes, *theirs.logits, *theirs.keypoints, *theirs.masks),
        strict=True,
    ):
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_without_a_teacher_the_loss_is_named_but_zero() -> None:
    task = DistillTask(build("yolo26n.yaml"), None, [Term(LOSSES["sl2"])]).train()
    batch = preprocessed(shard_batch(2))
    assert float(task(batch)["dis_loss"]) == 0
    assert "dis_loss" not in DistillTask(task.student_model).train()(batch)
