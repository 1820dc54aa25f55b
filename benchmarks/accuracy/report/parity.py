"""Writes the page of the comparison with Ultralytics' own trainer from its rows alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.accuracy.report.report import how
from benchmarks.accuracy.report.statistics import Difference, paired
from benchmarks.accuracy.rows import Row, by_arm
from benchmarks.accuracy.run import Run


def differences(runs: Sequence[Run], rows: Mapping[str, Row]) -> list[Difference]:
    """Ours minus Ultralytics', and each variant minus ours, paired by seed, over the runs that are finished."""
    found = {arm: {seed: row.map for seed, row in of_arm.items()} for arm, of_arm in by_arm(runs, rows).items()}
    compared = []
    for arm, values in found.items():
        case, _, name = arm.partition(", ")
        other = {"ours": "Ultralytics", "Ultralytics": ""}.get(name, name.rpartition("+")[0] or "ours")
        others = found.get(f"{case}, {other}", {})
        if other and values.keys() & others.keys():
            compared.append(paired(arm, values, f"{case}, {other}", others))
    return compared


def table(compared: Sequence[Difference]) -> str:
    """The comparison as a Markdown table."""
    lines = ["| mAP50-95 | compared with | seeds | means | difference | 95 % interval |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {each.arm} | {each.other} | {len(each.differences)} | {each.mean:.3f}, {each.other_mean:.3f} "
        f"| {each.difference:+.4f} | {each.interval_text} |"
        for each in compared
    ]
    return "\n".join(lines)


def page(runs: Sequence[Run], rows: Mapping[str, Row], command: str) -> str:
    """The page, as Markdown. Runs without a row are counted as missing."""
    finished = by_arm(runs, rows)
    missing = sum(run.digest not in rows for run in runs)
    one = runs[0]
    start = one.student
    before = f", after {start.epochs} epochs on `{start.data.look}` scenes" if isinstance(start, Run) else ""
    setting = (
        f"yolo26n on {one.data.train} `{one.data.look}` scenes of {one.data.imgsz} px, {one.epochs} epochs of batch "
        f"{one.training['batch']}{before}: each training once by this trainer and once by Ultralytics' own, from the "
        "same bytes and settings. Generated from the raw figures; nothing is left out or picked."
    )
    parts = [
        "# Parity with Ultralytics' own trainer",
        setting,
        *([f"**{missing} of {len(runs)} runs are not finished.**"] if missing else []),
        "## Differences",
        "Ours minus Ultralytics', and each variant minus ours, paired by seed, with the 95 % interval of Student's t.",
        table(differences(runs, rows)),
        "## Every seed",
        _seeds(finished),
        "## How",
        how([row for of_arm in finished.values() for row in of_arm.values()], command),
    ]
    return "\n\n".join(parts) + "\n"


def _seeds(finished: Mapping[str, Mapping[int, Row]]) -> str:
    lines = ["| training | mAP50-95 by seed | one-to-one head | CPU s | peak MB |", "|---|---|---|---|---|"]
    for arm, rows in finished.items():
        by_seed = [row for _, row in sorted(rows.items())]
        ones = ["–" if row.map_one2one is None else f"{row.map_one2one:.4f}" for row in by_seed]
        cells = (
            arm,
            ", ".join(f"{row.map:.4f}" for row in by_seed),
            ", ".join(ones),
            ", ".join(f"{row.cpu_seconds:.0f}" for row in by_seed),
            ", ".join(str(row.peak_mb) for row in by_seed),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
