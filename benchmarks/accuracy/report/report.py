"""Writes the page of a scenario from its rows alone. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from benchmarks.accuracy.arms import ARMS, SCENARIOS, SIZES
from benchmarks.accuracy.plan import Plan
from benchmarks.accuracy.report.statistics import paired
from benchmarks.accuracy.rows import Row, by_arm
from benchmarks.accuracy.run import Run

REFERENCES = ("plain", "plain-equal", "plain-equal-all", "ultralytics")
"""Arms that every other one is compared with."""
PLATEAU = 0.01
"""A teacher whose last quarter of epochs gained less is called trained to its plateau."""


def report(plan: Plan, runs: Sequence[Run], rows: Mapping[str, Row], command: str, picture: str | None) -> str:
    """The page, as Markdown. Runs without a row are counted as missing."""
    finished = by_arm(runs, rows)
    teacher = finished.pop("teacher", {})
    missing = sum(run.digest not in rows for run in runs)
    parts = [
        f"# {plan.scenario}, {plan.task}",
        _setting(plan),
        _teacher(list(teacher.values())),
        *([f"**{missing} of {len(runs)} runs are not finished.**"] if missing else []),
        "## Every seed",
        _seeds(finished),
        "## Differences",
        "Paired by seed, with the 95 % interval of Student's t. One-to-many head, last weights.",
        _differences(finished),
        "## When plain's end is reached",
        "The first epoch whose mAP50-95 is at least that of plain's last one, in CPU seconds up to there, as a part of "
        "plain's for the whole training; the teacher's training is not counted.",
        _reached(finished),
        *([f"## Curves\n\n![mAP50-95 by epoch]({picture})"] if picture else []),
        "## How",
        how([*teacher.values(), *(row for arm in finished.values() for row in arm.values())], command),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _setting(plan: Plan) -> str:
    scenario, size, run = SCENARIOS[plan.scenario], SIZES[plan.size], plan.run("plain", plan.seeds[0])
    pair = f"{scenario.family}n ← {scenario.teacher_family or scenario.family}s"
    return (
        f"{pair}, {scenario.title}: `{scenario.look}` scenes of {size.imgsz} px, "
        f"{run.data.train} for training and {size.val} for validation, data seed {plan.data_seed}, {run.epochs} epochs "
        f"of batch {size.batch}, optimizer {size.optimizer}, lr0 {run.training['lr0']:g}. Generated from the raw "
        "figures; nothing is left out or picked."
    )


def _teacher(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    (row,) = rows
    text = f"Teacher: {row.map:.3f} mAP50-95 after {row.epochs} epochs, {row.cpu_seconds:.0f} CPU seconds"
    if len(row.curve) >= 4:
        gain = row.curve[-1] - row.curve[-1 - len(row.curve) // 4]
        state = "at its plateau" if gain < PLATEAU else "not at its plateau"
        text += f"; its last quarter of epochs gained {gain:+.3f} ({state})"
    return text + "."


def _seeds(finished: Mapping[str, Mapping[int, Row]]) -> str:
    lines = [
        "| arm | seed | epochs | mAP50-95 | one-to-one head | CPU s | wall s | peak MB | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, rows in finished.items():
        for seed, row in sorted(rows.items()):
            one = "–" if row.map_one2one is None else f"{row.map_one2one:.4f}"
            lines.append(
                f"| {_title(arm)} | {seed} | {row.epochs} | {row.map:.4f} | {one} | {row.cpu_seconds:.0f} "
                f"| {row.wall_seconds:.0f} | {row.peak_mb} | {row.load:.1f} |"
            )
    return "\n".join(lines)


def _differences(finished: Mapping[str, Mapping[int, Row]]) -> str:
    lines = [
        "| arm | mean | minus | by seed | mean difference | 95 % | one-to-one head | CPU seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, rows in finished.items():
        for reference in REFERENCES:
            others = finished.get(reference, {})
            if arm in ("plain", reference) or not rows.keys() & others.keys():
                continue
            many = paired(arm, _values(rows, _map), reference, _values(others, _map))
            ones, other_ones = _values(rows, _one2one), _values(others, _one2one)
            one = paired(arm, ones, reference, other_ones) if ones.keys() & other_ones.keys() else None
            cost = statistics.fmean(row.cpu_seconds for row in rows.values())
            cost /= statistics.fmean(row.cpu_seconds for row in others.values())
            lines.append(
                f"| {_title(arm)} | {many.mean:.4f} | {reference} "
                f"| {', '.join(f'{value:+.3f}' for value in many.differences.values())} | {many.difference:+.4f} "
                f"| {many.interval_text} | {f'{one.difference:+.4f}' if one else '–'} | × {cost:.2f} |"
            )
    return "\n".join(lines) if len(lines) > 2 else "Nothing can be compared yet."


def _reached(finished: Mapping[str, Mapping[int, Row]]) -> str:
    lines = ["| arm | by seed |", "|---|---|"]
    for arm, rows in finished.items():
        plain = finished.get("plain", {})
        parts = [reached(row, plain[seed]) for seed, row in sorted(rows.items()) if seed in plain]
        if arm != "plain" and parts:
            texts = ("never" if part is None else f"{part:.2f}" for part in parts)
            lines.append(f"| {_title(arm)} | {', '.join(texts)} |")
    return "\n".join(lines) if len(lines) > 2 else "Nothing can be compared yet."


def reached(row: Row, other: Row) -> float | None:
    """CPU seconds until a run is as good as another one at its end, as a part of the other's; None if it never is."""
    if not row.curve or not other.curve:
        return None
    epochs = next((number for number, value in enumerate(row.curve, 1) if value >= other.curve[-1]), None)
    return None if epochs is None else row.cpu_seconds * epochs / len(row.curve) / other.cpu_seconds


def _map(row: Row) -> float | None:
    return row.map


def _one2one(row: Row) -> float | None:
    return row.map_one2one


def _values(rows: Mapping[int, Row], value: Callable[[Row], float | None]) -> dict[int, float]:
    found = {seed: value(row) for seed, row in rows.items()}
    return {seed: number for seed, number in found.items() if number is not None}


def _title(arm: str) -> str:
    return f"`{arm}`: {ARMS[arm].title}" if arm in ARMS else arm


def how(rows: Sequence[Row], command: str) -> str:
    """The command, commits and versions that made the rows."""
    lines = [f"```\n{command}\n```"]
    lines += [f"- commit {commit}" for commit in sorted({row.commit for row in rows})]
    lines += [f"- {versions}" for versions in sorted({row.versions for row in rows})]
    lines.append(
        "- CPU s: of all processes of the training, with start-up and validation; wall s depends on the load. mAP is "
        "that of the last weights by Ultralytics' `val`, which takes the one-to-many head with NMS; the one-to-one "
        "head does without. Curves are as the trainers measured them."
    )
    return "\n".join(lines)
