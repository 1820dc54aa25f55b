"""Every model that is promised is trained under a teacher from its first step to its weights, stopped and resumed."""

import copy
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.nn import tasks

from distill_api.spec.recipe import AUTO
from distill_api.status import Result
from tests.support.ranks.in_process import STEPS, Volumes
from tests.support.models import SUFFIX

MakeVolumes = Callable[..., Volumes]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> MakeVolumes:
    made: dict[str, Volumes] = {}

    def make(task: str = "detect") -> Volumes:
        if task not in made:
            made[task] = Volumes(tmp_path_factory.mktemp(task), task)
        return made[task]

    return make


def assert_distilled(place: Volumes, job: str, result: Any, student: str) -> None:
    """The run is over, its teacher was at work, and it leaves a plain student."""
    assert isinstance(result, Result)
    rows = place.results(job)
    assert len(rows) == 2
    assert all(float(row["train/dis_loss"]) > 0 for row in rows)
    best = YOLO(place.root / "checkpoints" / job / "weights/best.pt")
    fresh = YOLO(student, task=place.task).model.model[-1] if student.endswith(".yaml") else None
    assert fresh is None or type(best.model.model[-1]) is type(fresh)
    assert not any("projector" in name or "teacher" in name for name in best.model.state_dict())
    assert dict(best.names) == place.classes


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_every_task_resumes_bitwise(volumes: MakeVolumes, task: str) -> None:
    place = volumes(task)
    student, teacher = f"yolo26n{SUFFIX[task]}.yaml", place.save_model(f"yolo26s{SUFFIX[task]}.yaml")
    calm = place.run("calm", student, teacher)
    assert place.run("disturbed", student, teacher, stop_after=1) == 2
    resumed = place.run("disturbed", student, teacher)
    assert_distilled(place, "calm", calm, student)
    assert place.final_state("disturbed") == place.final_state("calm")
    assert place.results("disturbed") == place.results("calm")
    assert resumed.student_map == calm.student_map


def test_a_student_that_inherits_resumes_bitwise_and_reports_it(volumes: MakeVolumes) -> None:
    place = volumes()
    student, teacher = {"model": "yolo26n.yaml", "init": "inherit"}, place.save_model("yolo26s.yaml")
    calm = place.run("heir", student, teacher)
    assert place.run("disturbed-heir", student, teacher, stop_after=1) == 2
    place.run("disturbed-heir", student, teacher)
    assert_distilled(place, "heir", calm, "yolo26n.yaml")
    assert place.final_state("disturbed-heir") == place.final_state("heir")
    for job in ("heir", "disturbed-heir"):
        folder = place.root / "checkpoints" / job
        inherited = json.loads((folder / "report.json").read_text())["training"]["inherited"]
        assert inherited == {
            "channels": "activations",
            "images": 64,
            "share": 1.0,
            "tensors": 366,
            "ofTensors": 366,
            "left": {},
        }
        page = (folder / "report.html").read_text()
        assert (
            "<dt>parameters</dt><dd>100.0%, in 366 of 366 tensors</dd><dt>channels</dt><dd>by activations</dd>" in page
        )


def test_a_run_keeps_the_number_formats_that_it_began_with(
    volumes: MakeVolumes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The machine of the first attempt is said to be fast in bf16, and that of the second one not."""
    place = volumes()
    models = "yolo26n.yaml", place.save_model("yolo26s.yaml")
    monkeypatch.setattr("distill_trainer.models.precision.WORTHWHILE", 0.0)
    assert place.run("moved", *models, stop_after=1, precision="auto") == 2
    monkeypatch.setattr("distill_trainer.models.precision.WORTHWHILE", float("inf"))
    with caplog.at_level(logging.INFO):
        place.run("moved", *models, precision="auto")
    assert "teacher.precision auto stands for bf16, as when the run began" in caplog.text
    place.run("explicit", *models, precision="bf16")
    place.run("fp32", *models)
    assert place.final_state("moved") == place.final_state("explicit") != place.final_state("fp32")


def test_recipe_auto_is_what_it_stands_for_resumes_bitwise_and_is_told(volumes: MakeVolumes) -> None:
    place = volumes()
    teacher = place.save_model("yolo26s.yaml")
    assert place.run("auto", "yolo26n.yaml", teacher, stop_after=1, recipe="auto") == 2
    place.run("auto", "yolo26n.yaml", teacher, recipe="auto")
    fields = copy.deepcopy(dict(AUTO))
    student = {"model": "yolo26n.yaml"} | fields.pop("student")
    place.run("fields", student, teacher, **fields)
    assert place.final_state("auto") == place.final_state("fields")
    told, plain = (
        json.loads((place.root / "checkpoints" / job / "report.json").read_text())["training"]
        for job in ("auto", "fields")
    )
    assert told["recipe"] == AUTO
    assert plain | {"recipe": told["recipe"], "seconds": told["seconds"]} == told
    page = (place.root / "checkpoints" / "auto" / "report.html").read_text()
    assert "<dt>recipe: auto chose</dt><dd><code>{&quot;student&quot;: {&quot;init&quot;: &quot;inherit&quot;, " in page


@pytest.mark.parametrize("task", ["detect", "obb"])
def test_balanced_terms_resume_bitwise_and_are_told(volumes: MakeVolumes, task: str) -> None:
    place = volumes(task)
    student, teacher = f"yolo26n{SUFFIX[task]}.yaml", place.save_model(f"yolo26s{SUFFIX[task]}.yaml")
    terms = [{"loss": "spkd"}, {"loss": "bckd", "weight": 0.5}, {"loss": "iou"}]
    balanced = {"terms": terms, "share": 0.5, "projector": "linear", "schedule": "cosine"}
    calm = place.run("balanced", student, teacher, distillation=balanced)
    assert place.run("shaken", student, teacher, stop_after=1, distillation=balanced) == 2
    place.run("shaken", student, teacher, distillation=balanced)
    assert_distilled(place, "balanced", calm, student)
    assert place.final_state("shaken") == place.final_state("balanced")
    assert place.results("shaken") == place.results("balanced")
    for row in place.results("balanced"):
        parts = [float(row[f"train/dis_{name}_loss"]) for name in ("spkd", "bckd", "iou")]
        assert all(part > 0 for part in parts)
        assert float(row["train/dis_loss"]) == pytest.approx(sum(parts), abs=1e-4)
        assert float(row["val/dis_iou_loss"]) == 0


@pytest.mark.parametrize("task", SUFFIX)
def test_images_without_labels_teach_until_distillation_ends(volumes: MakeVolumes, task: str) -> None:
    """With their labels taken away: beside them lie label files that would say otherwise."""
    place = volumes(task)
    student, teacher = f"yolo26n{SUFFIX[task]}.yaml", place.save_model(f"yolo26s{SUFFIX[task]}.yaml")
    more = place.root / "data/more"
    if not more.exists():
        shutil.copytree(place.root / "data/images/train", more / "images")
        shutil.copytree(place.root / "data/labels/train", more / "labels")
    dataset = {"config": "digits.yaml", "unlabelled": {"images": "more/images", "ratio": 0.5}}
    losses = ["spkd", "bckd", "iou", *{"pose": ["oks"], "segment": ["mask"]}.get(task, [])]
    spec = {"dataset": dataset, "distillation": {"terms": [{"loss": loss} for loss in losses]}}
    once = place.run("calm-more", student, teacher, **spec)
    assert place.run("shaken-more", student, teacher, stop_after=1, **spec) == 2
    place.run("shaken-more", student, teacher, **spec)
    assert_distilled(place, "calm-more", once, student)
    assert place.final_state("shaken-more") == place.final_state("calm-more")
    without = {"distillation": spec["distillation"]}
    place.run("calm-less", student, teacher, **without)
    (more_row, _), (less_row, _) = place.results("calm-more"), place.results("calm-less")
    assert more_row["train/dis_bckd_loss"] != less_row["train/dis_bckd_loss"]
    assert all(float(more_row[f"train/dis_{loss}_loss"]) > 0 for loss in losses)


@pytest.mark.parametrize("workers", [0, 1])
def test_distillation_that_ends_by_itself_resumes_around_its_end(
    volumes: MakeVolumes, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    """With unlabelled images, which a worker has loaded ahead when it ends."""
    place = volumes()
    models = "yolo26n.yaml", place.save_model("yolo26s.yaml")
    dataset = {"config": "digits.yaml", "unlabelled": {"images": "images/train"}}
    distillation = {"terms": [{"loss": "spkd"}], "share": 0.5, "schedule": "stop", "until": {"minImprovement": 0.9}}
    training = {"epochs": 4, "workers": workers}
    calm, shaken = f"calm-auto-{workers}", f"shaken-auto-{workers}"
    with caplog.at_level(logging.INFO, logger="distill_trainer"):
        place.run(calm, *models, dataset=dataset, distillation=distillation, training=dict(training))
    assert "distillation ends at step 6: the loss fell by less than 0.9" in caplog.text
    assert [float(row["train/dis_loss"]) > 0 for row in place.results(calm)] == [True, True, False, False]
    for stop_after, stopped in ((4, 5), (6, 6), (7, 8)):  # the second in the validation after its end
        spec = {"dataset": dataset, "distillation": distillation, "training": dict(training)}
        assert place.run(shaken, *models, stop_after=stop_after, **spec) == stopped
    place.run(shaken, *models, dataset=dataset, distillation=distillation, training=dict(training))
    assert place.final_state(shaken, 12) == place.final_state(calm, 12)
    assert place.results(shaken) == place.results(calm)


@pytest.mark.parametrize(("student", "teacher"), ["sm", "mx", "lx"])
def test_every_recommended_pair_trains_and_resumes(tmp_path: Path, student: str, teacher: str) -> None:
    """n under s is what all other runs are made of."""
    place = Volumes(tmp_path)
    models = f"yolo26{student}.yaml", place.save_model(f"yolo26{teacher}.yaml")
    once = {"training": {"epochs": 1}}
    assert place.run("pair", *models, stop_after=1, **once) == 2
    result = place.run("pair", *models, **once)
    assert isinstance(result, Result)
    assert [float(row["train/dis_loss"]) > 0 for row in place.results("pair")] == [True]
    assert sum(p.numel() for p in YOLO(place.root / "checkpoints/pair/weights/best.pt").model.parameters()) > 9e6


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("yolo11n.yaml", "yolo11s.yaml"),
        ("yolov8n.yaml", "yolov8s.yaml"),
        ("yolov9t.yaml", "yolov9s.yaml"),
        ("yolov10n.yaml", "yolov10s.yaml"),
        ("yolo12n.yaml", "yolo12s.yaml"),
        ("yolov5n.yaml", "yolov5s.yaml"),
    ],
)
def test_every_family_trains(volumes: MakeVolumes, student: str, teacher: str) -> None:
    place = volumes()
    job = student.removesuffix(".yaml")
    assert_distilled(place, job, place.run(job, student, place.save_model(teacher, f"{job}-teacher.pt")), student)


def test_yolo26_trains_without_its_end_to_end_head(volumes: MakeVolumes) -> None:
    """end2end: false in the architecture, as in Ultralytics: one branch, and NMS. Its teacher has both branches."""
    place = volumes()
    architecture = tasks.yaml_model_load("yolo26n.yaml") | {"end2end": False}
    (place.root / "models/yolo26n-nms.yaml").write_text(yaml.safe_dump(architecture))
    result = place.run("nms", "yolo26n-nms.yaml", place.save_model("yolo26s.yaml"))
    assert isinstance(result, Result)
    head = YOLO(place.root / "checkpoints/nms/weights/best.pt").model.model[-1]
    assert not hasattr(head, "one2one_cv3")
    assert all(float(row["train/dis_loss"]) > 0 for row in place.results("nms"))


def test_a_teacher_of_another_family_is_used_when_the_job_allows_it(
    volumes: MakeVolumes, caplog: pytest.LogCaptureFixture
) -> None:
    place = volumes()
    student, teacher = "yolov8n.yaml", place.save_model("yolo26s.yaml")
    with caplog.at_level(logging.WARNING, logger="distill_trainer"):
        result = place.run("crossed", student, teacher, distillation={"allowCrossFamily": True})
    assert_distilled(place, "crossed", result, student)
    assert f"EXPERIMENTAL: teacher {teacher} and student {student}" in caplog.text


def test_a_pretrained_student_starts_from_its_weights(volumes: MakeVolumes) -> None:
    place = volumes()
    student, teacher = place.save_model("yolo26n.yaml"), place.save_model("yolo26s.yaml")
    still = {"lr0": 1e-9, "weight_decay": 0.0, "warmup_bias_lr": 0.0}
    for job, pretrained in (("pretrained", True), ("architecture", False)):
        result = place.run(job, student, teacher, training=still | {"pretrained": pretrained})
        assert_distilled(place, job, result, student)
    given = YOLO(place.root / "models" / student).model.model[0].conv.weight
    first, other = (
        YOLO(place.root / "checkpoints" / job / "weights/best.pt").model.model[0].conv.weight
        for job in ("pretrained", "architecture")
    )
    assert torch.allclose(first, given, atol=1e-3)
    assert not torch.allclose(other, given, atol=1e-2)
    assert place.final_state("pretrained", STEPS) != place.final_state("architecture", STEPS)
