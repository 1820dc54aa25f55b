"""student.init: inherit: the first weights are a slice of the teacher's that computes what the teacher does."""

import logging
from copy import deepcopy
from itertools import product
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from distill_api.errors import Permanent
from distill_api.pod.run import Directories
from distill_api.reasons import Reason
from distill_api.spec.inherit import Inherit
from distill_trainer.models.inherit.blocks import counterparts
from distill_trainer.models.inherit.channels import Group, positions
from distill_trainer.models.inherit.selection import MODES, chooser
from distill_trainer.models.inherit.weights import Inheritance
from distill_trainer.models.setup import check_inheritance, prepare
from distill_trainer.models.student import neck_channels
from distill_trainer.training.distillation.projector import Projector
from tests.support.models import SUFFIX, build, job_spec, preprocessed, shard_batch
from tests.support.ranks.in_process import Volumes
from tests.support.slices import Shapes, deaden, outputs, randomize

PARTLY = {
    ("yolo26", "s", "m"): (0.99, {"model.2.m.0", "model.4.m.0"}),
    ("yolo11", "s", "m"): (0.94, {f"model.{layer}.m.0" for layer in (2, 4, 13, 16, 19)}),
    ("yolov8", "m", "l"): (0.91, set()),
}
"""Least share, and the blocks that are left: a Bottleneck is no C3k, and the last layers of yolov8m are wider."""


@pytest.mark.parametrize("task", SUFFIX)
@pytest.mark.parametrize(
    ("family", "pair"), list(product(("yolo26", "yolo11", "yolov8"), ("ns", "sm", "ml", "lx"))), ids=lambda name: name
)
def test_every_pair_inherits_all_that_corresponds(family: str, pair: str, task: str) -> None:
    student, teacher = (Shapes(f"{family}{size}{SUFFIX[task]}.yaml") for size in pair)
    plan = Inheritance.of(student, teacher)
    choose = chooser("index", plan.trace.slices)
    inherited = plan.summary(choose)
    share, left = PARTLY.get((family, *pair), (1.0, set()))
    assert inherited.share >= share
    assert set(inherited.left) == left
    in_blocks = sum(name.startswith(tuple(f"{block}." for block in left)) for name in dict(student.named_parameters()))
    assert inherited.tensors == inherited.of_tensors - in_blocks
    for part in plan.trace.slices:
        assert part.student.shape[len(part.dims) :] == part.teacher.shape[len(part.dims) :]
        for number, dim in enumerate(part.dims):
            for indices, size in zip(positions(dim, choose), (part.student, part.teacher), strict=True):
                assert len(indices) == len(indices.unique()) > 0
                assert 0 <= indices.min() <= indices.max() < size.shape[number]


NARROWER = [*product(("yolo26", "yolo11", "yolov8"), ("ns",), SUFFIX)]
OTHERWISE = [
    ("yolo26", "sm", "detect"),  # blocks of other classes
    ("yolo26", "ml", "segment"),  # fewer blocks
    ("yolo26", "lx", "detect"),  # two thirds of the width, four of six attention heads
    ("yolov8", "sm", "obb"),  # fewer blocks, in a row
    ("yolov8", "ml", "pose"),  # fewer blocks, and a wider end
    ("yolov5", "ns", "detect"),
    ("yolov9", "ts", "detect"),
    ("yolo12", "ns", "detect"),
]


@pytest.mark.parametrize(("family", "pair", "task"), NARROWER + OTHERWISE)
def test_the_teachers_function_survives_if_only_dead_channels_go(family: str, pair: str, task: str) -> None:
    """Every slice fits every other, or the student's outputs would differ."""
    student, teacher = (build(f"{family}{size}{SUFFIX[task]}.yaml", task, seed=number)
                        for number, size in enumerate(pair))  # fmt: skip
    randomize(student, 1)
    randomize(teacher, 2)
    deaden(student, teacher, 3)
    by_index, images = deepcopy(student), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    inherited = Inheritance.of(student, teacher).copy("importance")
    (ours, mine), (theirs, other) = outputs(student, images), outputs(teacher, images)
    ours += [feature[:, channels] for feature, (channels, _) in zip(mine, inherited.neck, strict=True)]
    theirs += [feature[:, channels] for feature, (_, channels) in zip(other, inherited.neck, strict=True)]
    assert max(differences(ours, theirs)) < 1e-4

    Inheritance.of(by_index, teacher).copy("index")
    if (family, pair) != ("yolo26", "ml"):  # they are as wide as each other, so that no channel goes
        assert max(differences(outputs(by_index, images)[0], theirs[: -len(other)])) > 1e-2


def differences(ours: list[Tensor], theirs: list[Tensor]) -> list[float]:
    return [float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True)]


def test_a_projector_starts_with_the_channels_that_were_inherited() -> None:
    student, teacher = build("yolo26n.yaml"), build("yolo26s.yaml", seed=1)
    randomize(teacher, 2)
    deaden(student, teacher, 3)
    inherited = Inheritance.of(student, teacher).copy("importance")
    torch.manual_seed(0)
    projector = Projector(neck_channels(student), neck_channels(teacher))
    before = deepcopy(projector.state_dict())
    projector.align(inherited.neck)
    images = torch.rand(2, 3, 64, 64)
    features, wanted = outputs(student, images)[1], outputs(teacher, images)[1]
    for level, (projected, feature) in enumerate(zip(projector(features), wanted, strict=True)):
        channels = inherited.neck[level][1]
        assert torch.allclose(projected[:, channels], feature[:, channels], atol=1e-4)
        others = torch.ones(feature.shape[1], dtype=torch.bool)
        others[channels] = False
        assert torch.equal(projector[level][2].weight[others], before[f"{level}.2.weight"][others])


def test_an_index_is_every_second_channel_and_heads_stay_whole() -> None:
    student, teacher = build("yolo26n.yaml"), build("yolo26s.yaml", seed=1)
    randomize(teacher, 2)
    Inheritance.of(student, teacher).copy("index")
    ours, theirs = student.state_dict(), teacher.state_dict()
    assert torch.equal(ours["model.1.conv.weight"], theirs["model.1.conv.weight"][::2, ::2])
    assert torch.equal(ours["model.23.cv3.0.0.0.conv.weight"], theirs["model.23.cv3.0.0.0.conv.weight"][::2])
    assert torch.equal(ours["model.4.cv1.bn.running_var"], theirs["model.4.cv1.bn.running_var"][::2])
    heads = theirs["model.10.m.0.attn.qkv.conv.weight"].unflatten(0, (4, 128))[::2, :, ::2].flatten(0, 1)
    assert torch.equal(ours["model.10.m.0.attn.qkv.conv.weight"], heads)
    values = theirs["model.10.m.0.attn.pe.conv.weight"].unflatten(0, (4, 64))[::2].flatten(0, 1)
    assert torch.equal(ours["model.10.m.0.attn.pe.conv.weight"], values)
    classes = theirs["model.23.one2one_cv3.2.2.weight"][:, ::2]
    assert torch.equal(ours["model.23.one2one_cv3.2.2.weight"], classes)


@pytest.mark.parametrize(
    ("mode", "student", "scores", "selected"),
    [
        ("index", 2, [9, 1, 1, 1], [0, 2]),
        ("index", 4, [1, 1, 1, 1, 1, 9], [0, 1, 3, 4]),
        ("importance", 2, [0.1, 3, 0.2, 2], [1, 3]),
        ("importance", 2, [2, 1, 3, 1], [0, 2]),
        ("importance", 2, [1, 1, 1, 1], [0, 1]),
    ],
)
def test_a_mode_selects(mode: str, student: int, scores: list[float], selected: list[int]) -> None:
    assert MODES[mode](student, torch.tensor(scores)).tolist() == selected


def test_the_contract_has_the_modes_that_exist() -> None:
    assert set(get_args(Inherit.model_fields["channels"].annotation)) == set(MODES)


@pytest.mark.parametrize(
    ("student", "teacher", "matched"),
    [(1, 2, [0]), (2, 3, [0, 1]), (4, 6, [0, 1, 3, 4]), (2, 2, [0, 1]), (3, 1, [0, None, None])],
)
def test_blocks_are_taken_evenly(student: int, teacher: int, matched: list[int | None]) -> None:
    assert counterparts(student, teacher) == matched


def test_ties_are_found_over_any_number_of_sums() -> None:
    groups = [Group(2, 4) for _ in range(4)]
    for one, two in ((0, 1), (2, 3), (1, 3)):
        groups[one].tie(groups[two])
    assert len({id(group.root) for group in groups}) == 1


def test_a_layer_without_a_rule_is_left_and_named() -> None:
    class Unknown(nn.Conv2d):
        """A layer of somebody's own."""

    student, teacher = build("yolov8n.yaml"), build("yolov8s.yaml", seed=1)
    for model, width in ((student, 64), (teacher, 128)):
        old = model.model[5]
        model.model[5] = Unknown(width, 2 * width, 3, 2, 1)
        model.model[5].i, model.model[5].f, model.model[5].type = old.i, old.f, "Unknown"
    fresh = student.model[5].weight.clone()
    plan = Inheritance.of(student, teacher)
    inherited = plan.copy("index")
    assert torch.equal(student.model[5].weight, fresh)
    assert inherited.left["model.5"] == "there is no rule for Unknown"
    assert 0.8 < inherited.share < 1
    assert "left as initialized: model.5: there is no rule for Unknown" in inherited.lines()
    student.loss(preprocessed(shard_batch(2)))[0].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


def test_the_same_models_give_the_same_weights() -> None:
    teacher = build("yolo26s.yaml", seed=1)
    students = [build("yolo26n.yaml") for _ in range(2)]
    for student in students:
        Inheritance.of(student, teacher).copy("importance")
    for one, two in zip(students[0].state_dict().values(), students[1].state_dict().values(), strict=True):
        assert torch.equal(one, two)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Volumes:
    return Volumes(tmp_path_factory.mktemp("inherit"))


def prepared(volumes: Volumes, student: str, teacher: str, **fields: Any) -> Any:
    volumes.save_model(teacher.replace(".pt", ".yaml"))
    directories = Directories(data=str(volumes.root / "data"), models=str(volumes.root / "models"))
    spec = {"dataset": {"config": "digits.yaml"}, "teacher": {"model": teacher}}
    return prepare(job_spec(**spec, student={"model": student} | fields), directories)


def test_what_a_job_will_inherit_is_said_before_anything_changes(
    volumes: Volumes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="distill_trainer"):
        ready = prepared(volumes, "yolo26n.yaml", "yolo26s.pt", init="inherit")
    says = (
        "first weights from teacher yolo26s.pt, channels by activations: 100.0% of the student's parameters (366 of 366"
    )
    assert says in caplog.text
    assert (ready.inherited.tensors, ready.inherited.neck) == (366, ())
    fresh = prepared(volumes, "yolo26n.yaml", "yolo26s.pt").student.state_dict()
    assert all(torch.equal(ours, fresh[name]) for name, ours in ready.student.state_dict().items())


def test_a_job_that_does_not_ask_inherits_nothing(volumes: Volumes) -> None:
    ready = prepared(volumes, "yolo26n.yaml", "yolo26s.pt")
    alone = prepare(
        job_spec(teacher=None, dataset={"config": "digits.yaml"}), Directories(data=str(volumes.root / "data"))
    )
    assert ready.inherited is None
    for ours, theirs in zip(ready.student.state_dict().values(), alone.student.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_of_a_pt_student_are_replaced_and_it_is_said(
    volumes: Volumes, caplog: pytest.LogCaptureFixture
) -> None:
    volumes.save_model("yolo26n.yaml")
    with caplog.at_level(logging.INFO, logger="distill_trainer"):
        prepared(volumes, "yolo26n.pt", "yolo26s.pt", init="inherit")
    assert "weights of teacher yolo26s.pt replace those of yolo26n.pt" in caplog.text


def test_models_whose_layers_do_not_correspond_are_refused(volumes: Volumes) -> None:
    with pytest.raises(Permanent) as refused:
        prepared(volumes, "yolov8n.yaml", "yolo11s.pt", init="inherit")
    assert refused.value.reason is Reason.PAIR_MISMATCH
    assert "different model families" in refused.value.message
    spec = job_spec(student={"model": "n.yaml", "init": "inherit"}, teacher={"model": "s.pt"})
    with pytest.raises(Permanent, match=r"student n\.yaml cannot inherit weights from teacher s\.pt: their layers are"):
        check_inheritance(build("yolov8n.yaml"), build("yolov8s-p2.yaml"), spec)
    ours, theirs = (SimpleNamespace(model=nn.Sequential(nn.Conv2d(3, 8, kernel))) for kernel in (1, 3))
    ours.model[0].f = theirs.model[0].f = -1
    ours.named_parameters = ours.model.named_parameters
    with pytest.raises(
        Permanent, match=r"its kernel or stride differs from the teacher's; choose a teacher .* or leave"
    ):
        check_inheritance(ours, theirs, spec)
