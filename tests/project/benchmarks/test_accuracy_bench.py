"""The pure parts of the accuracy benchmarks: statistics, what is left to run, arms, rows, and the page."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.accuracy import parity
from benchmarks.accuracy.__main__ import command_of, main, parse
from benchmarks.accuracy.arms import ARMS, DEFAULT_ARMS, SCENARIOS, SIZES, UNLABELLED
from benchmarks.accuracy.plan import Plan, equal_epochs
from benchmarks.accuracy.report.parity import differences, page, table
from benchmarks.accuracy.report.report import reached, report
from benchmarks.accuracy.report.statistics import mean_interval, paired
from benchmarks.accuracy.rows import Row, append_row, by_digest, read_rows
from benchmarks.accuracy.run import Data, Run, in_order, ready
from benchmarks.accuracy.trainers.ours import job_file
from benchmarks.accuracy.trainers.request import Request
from benchmarks.accuracy.trainers.switches import SWITCHES
from distill_api.job import read_job
from distill_api.spec.recipe import AUTO, AUTO_UNLABELLED

DATA = Data("digits", "detect", 32, 16, 64, 0)
TEACHER = Run("teacher", 9, DATA, "yolo26s.yaml", training={"epochs": 4})
STUDENT = Run("recipe", 0, DATA, "yolo26n.yaml", teacher=TEACHER, training={"epochs": 4})
PLAIN = Run("plain", 0, DATA, "yolo26n.yaml", training={"epochs": 4})


def row(run: Run, map_: float, seconds: float = 100.0, **changes: object) -> Row:
    fields = {"arm": run.arm, "seed": run.seed, "data_seed": run.data.seed, "epochs": run.epochs, "digest": run.digest}
    figures = {"map": map_, "map50": map_ + 0.1, "map_one2one": map_ - 0.01, "curve": (0.1, map_), "load": 1.5}
    costs = {"cpu_seconds": seconds, "wall_seconds": 2 * seconds, "step_seconds": 50.0, "peak_mb": 700}
    texts = {"commit": "abc", "versions": "ultralytics 1", "finished": "2026-11-28"}
    return Row(**fields | figures | costs | texts | changes)


def test_the_interval_is_student_t() -> None:
    """Against a table: t is 2.776 for four degrees of freedom at 95 %."""
    values = [0.01, 0.03, 0.02, 0.05, 0.04]
    low, high = mean_interval(values) or (0, 0)
    error = (sum((value - 0.03) ** 2 for value in values) / 4) ** 0.5 / 5**0.5
    assert (low, high) == pytest.approx((0.03 - 2.776445 * error, 0.03 + 2.776445 * error))
    assert mean_interval([0.1]) is None


def test_arms_are_paired_by_seed() -> None:
    found = paired("a", {0: 0.5, 1: 0.6, 7: 0.9}, "b", {0: 0.4, 1: 0.4, 3: 0.0})
    assert found.differences == pytest.approx({0: 0.1, 1: 0.2})
    assert found.difference == pytest.approx(0.15)
    with pytest.raises(ValueError, match="a and b have no seed in common"):
        paired("a", {0: 1.0}, "b", {1: 1.0})
    assert paired("a", {0: 1.0}, "b", {0: 0.5}).interval_text == "one seed: none"


def test_a_digest_is_of_all_that_the_result_depends_on() -> None:
    assert replace(STUDENT, arm="another name").digest == STUDENT.digest
    changes = [
        {"seed": 1},
        {"data": replace(DATA, seed=1)},
        {"student": "yolo26s.yaml"},
        {"teacher": replace(TEACHER, seed=1)},
        {"trainer": "ultralytics"},
        {"training": {"epochs": 5}},
        {"spec": {"distillation": {"weight": 1.0}}},
        {"switches": ("contiguous",)},
    ]
    assert len({STUDENT.digest, *(replace(STUDENT, **change).digest for change in changes)}) == len(changes) + 1


def test_what_is_needed_is_trained_first_and_nothing_twice() -> None:
    other = replace(STUDENT, seed=1)
    order = in_order([STUDENT, PLAIN, other, replace(PLAIN, arm="the same")])
    assert order == [TEACHER, STUDENT, PLAIN, other]
    assert ready(order, set(), set()) == TEACHER
    assert ready(order, set(), {TEACHER.digest}) == PLAIN, "students wait for the teacher, others do not"
    assert ready(order, {TEACHER.digest}, {STUDENT.digest}) == PLAIN
    assert ready(order, {TEACHER.digest, STUDENT.digest, PLAIN.digest}, {other.digest}) is None


def test_a_row_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [row(PLAIN, 0.25), row(STUDENT, 0.5, map_one2one=None, curve=())]
    for each in rows:
        append_row(tmp_path / "raw" / "a.csv", each)
    assert read_rows(tmp_path / "raw" / "a.csv") == rows
    assert by_digest([*rows, row(PLAIN, 0.75)])[PLAIN.digest].map == 0.75
    assert read_rows(tmp_path / "none.csv") == []
    (tmp_path / "raw" / "a.csv").write_text("arm,seed\nplain,x\n")
    with pytest.raises(SystemExit, match=r"a\.csv has a line that is no result"):
        read_rows(tmp_path / "raw" / "a.csv")


def test_equal_seconds_buy_epochs_for_the_first_seed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert equal_epochs(10, 100, 160) == 16
    assert equal_epochs(10, 100, 20) == 10
    plan = Plan("scratch", "detect", "tiny", 0, [3, 4], DEFAULT_ARMS)
    seconds = {plan.run("plain", 3).digest: 10.0, plan.run("auto", 3).digest: 25.0, plan.teacher.digest: 40.0}
    runs = plan.equal_runs(seconds)
    assert [(run.arm, run.seed, run.epochs) for run in runs] == [("plain-equal", 3, 5), ("plain-equal-all", 3, 13)]
    monkeypatch.setitem(ARMS, "plain-equal", replace(ARMS["plain-equal"], once=False))
    both = [run for run in plan.equal_runs(seconds) if run.arm == "plain-equal"]
    assert [(run.seed, run.epochs) for run in both] == [(3, 5), (4, 5)]
    assert plan.runs()[0] == plan.teacher
    assert len(plan.runs()) == 1 + 2 * 6


def test_auto_is_known_by_the_fields_that_it_stands_for() -> None:
    assert Plan("scratch", "detect", "tiny", 0, [0], ["auto"]).run("auto", 0).spec == AUTO
    assert Plan("fine-tune", "detect", "tiny", 0, [0], ["auto"]).run("auto", 0).spec == AUTO
    few = Plan("few-labels", "detect", "tiny", 0, [0], ["auto"]).run("auto", 0)
    assert few.spec == {**AUTO_UNLABELLED, **UNLABELLED}


def test_an_arm_that_cannot_be_run_is_refused_and_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    only_report = ["--report-only", "--results", str(tmp_path)]  # so that nothing is trained if this breaks
    with pytest.raises(SystemExit, match="arm unlabelled needs images without labels, which scenario scratch has not"):
        main(["--scenario", "scratch", "--arms", "plain", "unlabelled", *only_report])
    with pytest.raises(SystemExit, match="arm plain-equal needs the arms plain and auto"):
        main(["--arms", "plain", "plain-equal", *only_report])
    with pytest.raises(SystemExit, match="arm auto inherits, which scenario cross-family with two families excludes"):
        main(["--scenario", "cross-family", "--arms", "plain", "auto", *only_report])
    with pytest.raises(SystemExit):
        parse(["--arms", "nonsense"])
    assert "invalid choice: 'nonsense'" in capsys.readouterr().err


def test_every_run_of_ours_is_a_valid_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.accuracy.trainers.request.dataset", lambda work, data: work / data.digest)
    runs = []
    for scenario in SCENARIOS:
        arms = [
            name
            for name, arm in ARMS.items()
            if (scenario == "few-labels" or not arm.unlabelled) and (scenario != "cross-family" or not arm.inherits)
        ]
        arms = [name for name in arms if ARMS[name].as_long_as in {None, *arms}]
        runs += Plan(scenario, "detect", "quick", 0, [0], arms).runs()
    choice = ["--seeds", "3", "--optimizers", "SGD", "--kinds", "distilled", "--variants", *parity.VARIANTS]
    for run in in_order([*runs, *parity.plan(parity.parse(choice))]):
        assert set(run.switches) <= SWITCHES.keys()
        if run.trainer == "ours":
            job = read_job(job_file(Request.of(run, tmp_path)))
            assert job.spec.training.seed == run.seed
            assert (job.spec.teacher is None) == (run.teacher is None)


def test_models_are_those_of_scenario_and_task() -> None:
    for scenario, task, student in (
        ("scratch", "detect", "yolo26n.yaml"),
        ("family-11", "segment", "yolo11n-seg.yaml"),
        ("family-v8", "obb", "yolov8n-obb.yaml"),
    ):
        plan = Plan(scenario, task, "quick", 5, [0], ["recipe"])
        assert plan.run("recipe", 0).student == student
        assert {(run.data.task, run.data.seed) for run in plan.runs()} == {(task, 5)}
    crossed = Plan("cross-family", "detect", "quick", 0, [0], ["recipe"])
    assert (crossed.run("recipe", 0).student, crossed.teacher.student) == ("yolo26n.yaml", "yolo11s.yaml")
    assert crossed.teacher.digest == Plan("family-11", "detect", "quick", 0, [0], ["plain"]).teacher.digest
    start = Plan("fine-tune", "pose", "quick", 0, [0], ["plain"]).run("plain", 0).student
    assert isinstance(start, Run)
    assert (start.student, start.data.look) == ("yolo26n-pose.yaml", "digits")
    assert Plan("few-labels", "detect", "quick", 0, [0], ["plain"]).teacher.training["fraction"] == 0.1


def test_the_page_has_every_seed_and_both_heads() -> None:
    plan = Plan("scratch", "detect", "tiny", 0, [0, 1], ["plain", "ultralytics", "recipe"])
    figures = {("plain", 0): 0.40, ("plain", 1): 0.42, ("recipe", 0): 0.45, ("recipe", 1): 0.44}
    runs = plan.runs()
    rows = {run.digest: row(run, figures[run.arm, run.seed]) for run in runs if (run.arm, run.seed) in figures}
    rows[plan.teacher.digest] = row(plan.teacher, 0.6, curve=(0.3, 0.5, 0.59, 0.595))
    page = report(plan, runs, rows, "make bench-accuracy", "scratch-detect.svg")
    assert "| `plain`: plain | 1 | 2 | 0.4200 | 0.4100 | 100 | 200 | 700 | 1.5 |" in page
    assert "| 0.4450 | plain | +0.050, +0.020 | +0.0350 | -0.156 to +0.226 | +0.0350 | × 1.00 |" in page
    assert "| `recipe`: Ultralytics' recipe in this trainer (`sl2`, constant 6.0) | 1.00, 1.00 |" in page
    assert "2 of 7 runs are not finished" in page
    assert "last quarter of epochs gained +0.005 (at its plateau)" in page
    assert "![mAP50-95 by epoch](scratch-detect.svg)" in page
    assert "commit abc" in page


def test_the_pages_command_makes_the_same_page() -> None:
    plan = Plan("few-labels", "segment", "tiny", 3, [0, 2], ["plain", "unlabelled"])
    args = parse(command_of(plan).split()[3:])
    assert Plan(args.scenario, args.task, args.size, args.data_seed, args.seeds, args.arms) == plan


def test_reaching_the_end_of_another_run_is_told_in_its_seconds() -> None:
    plain = row(PLAIN, 0.4, seconds=100.0, curve=(0.1, 0.2, 0.3, 0.4))
    assert reached(row(STUDENT, 0.6, seconds=120.0, curve=(0.2, 0.4, 0.5, 0.6)), plain) == pytest.approx(0.6)
    assert reached(row(STUDENT, 0.3, curve=(0.1, 0.3)), plain) is None
    assert reached(row(STUDENT, 0.6, curve=()), plain) is None


def test_parity_compares_ours_with_ultralytics_and_variants_with_ours() -> None:
    runs = parity.plan(parity.parse(["--seeds", "0", "1", "--optimizers", "SGD", "--variants", "exact-musgd"]))
    values = {"SGD plain, ours": 0.5, "SGD plain, Ultralytics": 0.4, "SGD plain, exact-musgd": 0.2}
    rows = {run.digest: row(run, values[run.arm] + run.seed / 100) for run in runs if run.arm in values}
    found = differences(runs, rows)
    assert [(each.arm, each.other, round(each.difference, 6)) for each in found] == [
        ("SGD plain, ours", "SGD plain, Ultralytics", 0.1),
        ("SGD plain, exact-musgd", "SGD plain, ours", -0.3),
    ]
    assert "| SGD plain, ours | SGD plain, Ultralytics | 2 | 0.505, 0.405 | +0.1000 |" in table(found)
    written = page(runs, rows, "python -m benchmarks.accuracy.parity")
    assert "| SGD plain, Ultralytics | 0.4000, 0.4100 | 0.3900, 0.4000 | 100, 100 | 700, 700 |" in written
    assert "6 of 12 runs are not finished" in written


def test_every_size_is_trained_with_a_part_without_mosaic() -> None:
    for size in SIZES:
        run = Plan("scratch", "detect", size, 0, [0], ["plain"]).run("plain", 0)
        assert 0 < run.training["close_mosaic"] < run.epochs
