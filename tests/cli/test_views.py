"""View models of stored jobs: what the screens show, without a cluster."""

from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from distill_api.pod.report import TrainerStatus
from distill_api.status import Progress
from distill_cli.screens import picture, tables
from distill_cli.screens.status import status as status_screen
from distill_cli.views import text
from distill_cli.views.compare import compare_view
from distill_cli.views.job.attempts import cost, costs_of
from distill_cli.views.job.curves import Curves, curves
from distill_cli.views.job.pods import pod_rows
from distill_cli.views.job.status import status_view
from distill_cli.views.row import row
from distill_cli.views.run import bar_text
from distill_cli.views.top import top_view
from distill_client import Job
from distill_trainer.process.telemetry.console import Console as TrainerConsole
from tests.support.cli.stored import ALL, NOW, drawn, stored


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("width", [80, 160])
def test_every_stored_job_has_every_screen(name: str, width: int) -> None:
    job = stored(name)
    view = status_view(job, [], [], Curves(), NOW)
    screen = drawn(status_screen(view), width)
    assert job.phase in screen
    assert "None" not in screen
    assert drawn(tables.rows([row(job, NOW)], namespaces=True, wide=True), width)
    assert drawn(tables.costs([cost(job)]), width)


def test_the_row_of_a_running_job() -> None:
    shown = row(stored("running"), NOW)
    assert (shown.phase, shown.nodes, shown.epoch, shown.restarts, shown.age) == (
        "Running",
        "2/2",
        "0/4",
        "1/0",
        "5m00s",
    )
    assert (shown.pair, shown.goodput) == ("yolo26n ← teacher", "9%")


def test_a_job_that_cannot_be_read_is_still_listed() -> None:
    job = stored("running")
    broken = Job({**job.raw, "spec": {**job.raw["spec"], "nodes": "many"}})
    assert (row(broken, NOW).phase, row(broken, NOW).reason) == ("Running", "not readable")
    (use,) = top_view([broken], [], None).jobs
    assert (use.name, use.phase, use.images_per_second, use.goodput) == (job.name, "Running", None, None)


def test_costs_are_charged_to_what_caused_them() -> None:
    """Attempt 1 ran out of memory: 2.7 s of lost work, and of its 42 s for restarts all but the 3 s of its start. The
    start of attempt 2 is charged to the same cause."""
    found = cost(stored("running"))
    hours = 2 / 3600
    assert found.useful == pytest.approx(5.3 * hours)
    assert found.lost == pytest.approx({"OutOfMemory": (2.7 + 39 + 3) * hours, "first start": 3 * hours})
    assert found.waiting == pytest.approx(6 * hours)
    assert found.total == pytest.approx((5.3 + 2.7 + 45) * hours)
    assert found.unit == "GPU-hours"


def test_jobs_that_cannot_be_read_are_told_beside_the_costs_of_the_others() -> None:
    good, newer = stored("running"), Job({**stored("running").raw, "spec": {"student": "of a newer version"}})
    costs, problems = costs_of([newer, good])
    assert [found.name for found in costs] == [good.name]
    assert problems[0].startswith(f"DistillJob {newer.name} cannot be read by this version: ")


def test_costs_of_attempts_that_are_not_listed_any_more_count() -> None:
    job = stored("running")
    goodput = job.raw["status"]["goodput"] | {"productiveSeconds": 1005.3}
    assert cost(stored("running", goodput=goodput)).earlier == pytest.approx(1000 * 2 / 3600)


def test_status_tells_an_old_checkpoint() -> None:
    committed = NOW - timedelta(seconds=200)
    progress = {
        "epoch": 1,
        "epochs": 4,
        "step": 90,
        "steps": 100,
        "committedStep": 60,
        "committedAt": committed.isoformat(),
    }
    view = status_view(stored("running", progress=progress), [], [], Curves(), NOW)
    assert view.progress is not None
    assert (view.progress.checkpoint, view.progress.stale) == ("step 60, 3m20s ago, 30 steps since", True)
    fresh = progress | {"committedAt": (NOW - timedelta(seconds=20)).isoformat()}
    fresh_view = status_view(stored("running", progress=fresh), [], [], Curves(), NOW).progress
    assert fresh_view is not None
    assert not fresh_view.stale


def test_pods_say_what_they_wait_for() -> None:
    def pod(rank: int, **status: Any) -> dict[str, Any]:
        labels = {"distilljob.dev/attempt": "2", "batch.kubernetes.io/job-completion-index": str(rank)}
        return {"metadata": {"name": f"p{rank}", "labels": labels}, "spec": {}, "status": status}

    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    pulling = {"name": "trainer", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not  found"}}}
    killed = {"name": "trainer", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    rows = pod_rows(
        [
            pod(2, phase="Failed", containerStatuses=[killed]),
            pod(0, phase="Pending", conditions=[unscheduled]),
            pod(1, phase="Pending", containerStatuses=[pulling]),
        ],
        attempt=2,
    )
    assert [(row.rank, row.state, row.detail, row.ok) for row in rows] == [
        (0, "Unschedulable", "0/3 nodes", False),
        (1, "ImagePullBackOff", "not found", False),
        (2, "Failed", "OOMKilled", False),
    ]
    assert pod_rows([pod(0)], attempt=1) == []


def test_curves_are_read_from_what_the_trainer_prints() -> None:
    stream = StringIO()
    console = TrainerConsole(enabled=True, stream=stream)
    console.line("resumed from step 3")
    for epoch, (dis, score) in enumerate([(6.0, None), (3.0, 0.25), (2.0, 0.3), (2.5, 0.35)], 1):
        console.epoch_done(min(epoch, 3), 3, {"box": 2.0, "dis": dis}, 1.5, score)  # the third is repeated
    found = curves(stream.getvalue().splitlines())
    assert found == Curves([1, 2, 3], {"box": [2.0] * 3, "dis": [6.0, 3.0, 2.5]}, [0.25, 0.35], [1.5] * 3)


def test_epochs_that_a_resume_repeats_replace_what_came_after_them() -> None:
    lines = [f"epoch {epoch}/9  box {value}  1.0s" for epoch, value in ((1, 5), (2, 4), (3, 3), (2, 8))]
    found = curves(lines)
    assert (found.epochs, found.losses) == ([1, 2], {"box": [5.0, 8.0]})


def test_sparklines_keep_the_shape() -> None:
    assert text.spark([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert len(text.spark(list(range(1000)), 32)) == 32
    assert text.spark([3.0, 3.0]) == "▄▄"
    assert text.spark([]) == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0s"), (59.6, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (86400 * 2.5, "2d12h"), (None, "–")],
)
def test_durations_have_two_units(seconds: float | None, said: str) -> None:
    assert text.duration(seconds) == said


def test_top_counts_only_pods_that_hold_a_node() -> None:
    job = stored("running")

    def pod(node: str | None, phase: str) -> dict[str, Any]:
        labels = {"distilljob.dev/job": "tiny"}
        container = {"resources": {"limits": {"nvidia.com/gpu": "4"}}}
        spec = {"containers": [container], **({"nodeName": node} if node else {})}
        return {"metadata": {"namespace": "team", "labels": labels}, "spec": spec, "status": {"phase": phase}}

    nodes = [{"metadata": {"name": name}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}} for name in ("a", "b")]
    view = top_view([job], [pod("a", "Running"), pod("a", "Failed"), pod(None, "Pending")], nodes)
    assert [(use.pods, use.accelerators) for use in view.jobs] == [(1, 4)]
    assert [(node.name, node.used, node.capacity) for node in view.nodes] == [("a", 4, 8), ("b", 0, 8)]
    assert top_view([job], [pod("a", "Running")], None).nodes[0].capacity is None


def test_compare_names_the_best_and_what_differs(tmp_path: Path) -> None:
    first, second = stored("succeeded"), stored("running")
    second.raw["metadata"]["name"] = "other"
    second.raw["spec"]["training"]["epochs"] = 7
    view = compare_view([first, second], {"other": Curves([1, 2], {"dis": [2.0, 1.0]}, [0.1, 0.2], [1, 1])})
    assert view.settings == {"training.epochs": ["100", "7"]}
    assert (view.best, view.outcome["student mAP"]) == (0, ["0.500", "–"])
    assert (view.outcome["teacher mAP"][0], view.outcome["of the teacher's"]) == ("0.600", ["83%", "–"])
    drawing = picture.svg(view, NOW)
    assert drawing.count("<polyline") == 2
    assert "its pods are gone" in drawing
    (tmp_path / "picture.svg").write_text(drawing)
    assert "training.epochs" in drawn(tables.compared(view))


def test_the_bar_of_a_run_has_losses_map_and_eta() -> None:
    progress = Progress(
        epoch=2, epochs=4, step=50, steps=100, distillation_loss=1.25, student_map=0.4, teacher_map=0.6,
        images_per_second=1234.5, eta_seconds=80,
    )  # fmt: skip
    status = TrainerStatus(job="a", uid="u", attempt=1, rank=0, world_size=1, state="training", progress=progress)
    line = "epoch 2/4  box 1.5  dis 9  mAP50-95 0.4000  1.5s"
    name, more = bar_text(status, line, 134)
    assert name == "epoch 3/4"
    assert more == "50.0%  box 1.5  dis 1.25  mAP 0.400 of 0.600  1,234 images/s  ETA 1m20s"
    assert bar_text(status, line, 54)[1] == "50.0%  mAP 0.400 of 0.600  ETA 1m20s"
    assert bar_text(status, line, 1)[1] == "50.0%"
