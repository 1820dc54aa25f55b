"""Renders report.html, a self-contained page, from a Report and its pictures. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from distill_trainer.outputs.report.chart import Line, dot_plot, line_chart
from distill_trainer.outputs.report.elements import details, section, table
from distill_trainer.outputs.report.examples import Examples
from distill_trainer.outputs.report.report import ModelReport, ModelRole, Report
from distill_trainer.outputs.report.sections import attempt, files, inherited, pictures, recipe, versions
from distill_trainer.outputs.report.style import STYLE

_ORDER: Sequence[ModelRole] = ("student", "teacher", "baseline")
_CLASSES_DRAWN = 20
_LOSSES = (("train/", "Training losses"), ("val/", "Validation losses"))


def report_html(report: Report, examples: Examples) -> bytes:
    """The content of report.html."""
    roles = [role for role in _ORDER if role in report.models]
    body = [
        f"<header><h1>{escape(report.job)}</h1>{_headline(report, roles)}</header><main>",
        section("Pictures", pictures(examples)),
        section("Classes", _classes(report, roles)),
        section(
            "Training", f'<div class="charts">{_map_chart(report)}{_loss_charts(report)}{_rate_chart(report)}</div>'
        ),
        section("Models", _models(report, roles)),
        section("What the student took from its teacher", inherited(report.training.inherited)),
        section("Recipe", recipe(report)),
        section("Attempts and time", attempt(report)),
        section("Versions and spec", versions(report)),
        section("Files", files(report.outputs)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(report.job)}: distillation report</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    ).encode()


def headline(report: Report) -> str:
    """What the run achieved, in one sentence."""
    student, teacher, baseline = (report.models.get(role) for role in _ORDER)
    assert student is not None
    if teacher is None:
        compared = f"The student reaches {student.map:.3f} mAP50-95."
    elif (closed := gap_closed(report)) is not None:
        compared = f"The student closed {closed:.0%} of the gap between the baseline and its teacher."
    elif teacher.map > 0:
        compared = f"The student reaches {student.map / teacher.map:.0%} of its teacher’s mAP50-95."
        if baseline is not None:
            compared += " The baseline is no worse than the teacher, so there was no gap to close."
    else:
        compared = "The teacher finds nothing on these images: its mAP50-95 is 0."
    return compared + (_cost(student, teacher) if teacher is not None else "")


def gap_closed(report: Report) -> float | None:
    """(student − baseline) / (teacher − baseline) of mAP50-95; None without a baseline worse than the teacher."""
    student, teacher, baseline = (report.models.get(role) for role in _ORDER)
    if student is None or teacher is None or baseline is None or teacher.map <= baseline.map:
        return None
    return (student.map - baseline.map) / (teacher.map - baseline.map)


def _cost(student: ModelReport, teacher: ModelReport) -> str:
    parts = []
    if student.parameters and teacher.parameters:
        parts.append(f"{student.parameters / teacher.parameters:.0%} of the teacher’s parameters")
    if student.latency_ms and teacher.latency_ms:
        parts.append(f"{student.latency_ms / teacher.latency_ms:.0%} of its latency")
    return f" It has {' and '.join(parts)}." if parts else ""


def _headline(report: Report, roles: Sequence[ModelRole]) -> str:
    cards = [
        f'<div class="card c{number}"><b>{report.models[role].map:.3f}</b><span>{role}<br>mAP50-95</span></div>'
        for number, role in enumerate(roles)
    ]
    if (closed := gap_closed(report)) is not None:
        cards.append(f'<div class="card"><b>{closed:.0%}</b><span>of the gap closed</span></div>')
    if report.agreement is not None:
        cards.append(
            f'<div class="card"><b>{report.agreement.student:.0%}</b>'
            f"<span>agreement with the teacher on {report.agreement.images} images</span></div>"
        )
    training = report.training
    facts = (
        f"Task {report.task}, images of {report.imgsz} px; {report.dataset.config} with {report.dataset.images} "
        f"validation images; {training.epochs} of {training.planned} epochs, best epoch {training.best_epoch}."
    )
    return (
        f'<p class="lead">{escape(headline(report))}</p><div class="cards">{"".join(cards)}</div>'
        f'<p class="note">{escape(facts)}</p>'
    )


_Value = Callable[[ModelReport], float | None]
_ROWS: Sequence[tuple[str, _Value, str, bool]] = (
    ("mAP50-95", lambda model: model.map, ".4f", True),
    ("mAP50", lambda model: model.map50, ".4f", True),
    ("precision", lambda model: model.precision, ".4f", True),
    ("recall", lambda model: model.recall, ".4f", True),
    ("size, MB", lambda model: model.size_mb, ".2f", False),
    ("parameters, millions", lambda model: None if model.parameters is None else model.parameters / 1e6, ".3f", False),
    ("GFLOPs", lambda model: model.gflops, ".2f", False),
    ("latency, ms", lambda model: model.latency_ms, ".2f", False),
)
"""Name, value, format specification, and whether higher is better."""


def _models(report: Report, roles: Sequence[ModelRole]) -> str:
    measured = report.measured
    return table("Models", ["", *roles, *_gaps(roles)], [_row(report, roles, *row) for row in _ROWS]) + (
        '<p class="note">Metrics: Ultralytics’ val on the validation split. Latency: median of single-image forward '
        f"passes at {report.imgsz} px, fused, fp32, without non-maximum suppression, on {escape(measured.device)} "
        f"({escape(measured.name)}), CPU threads: {measured.threads}, PyTorch {escape(measured.torch)}. Parameters and "
        "GFLOPs are for the fused model.</p>"
    )


def _gaps(roles: Sequence[ModelRole]) -> list[str]:
    return [f"student − {other}" for other in roles if other != "student"]


def _row(
    report: Report, roles: Sequence[ModelRole], name: str, value: _Value, spec: str, higher_is_better: bool
) -> list[str]:
    values = {role: value(report.models[role]) for role in roles}
    cells = ["–" if number is None else format(number, spec) for number in values.values()]
    gaps = [_gap(values["student"], values[other], spec, higher_is_better) for other in roles if other != "student"]
    return [escape(name), *cells, *gaps]


def _gap(student: float | None, other: float | None, spec: str, higher_is_better: bool) -> str:
    if student is None or other is None:
        return "–"
    difference = student - other
    text = format(difference, f"+{spec}")
    if float(text) == 0:
        return text
    return f'<span class="{"better" if (difference > 0) == higher_is_better else "worse"}">{text}</span>'


def _classes(report: Report, roles: Sequence[ModelRole]) -> str:
    """A plot of the classes that differ most from the baseline, or else from the teacher, and a table of all."""
    by_class = {role: report.models[role].map_by_class for role in roles}
    names = list(dict.fromkeys(name for role in roles for name in by_class[role]))
    other = roles[-1]

    def gain(name: str) -> float:
        return by_class["student"].get(name, 0.0) - by_class[other].get(name, 0.0)

    drawn = sorted(names, key=lambda name: -abs(gain(name)))[:_CLASSES_DRAWN]
    plotted: dict[str, dict[str, float]] = {
        name: {role: by_class[role][name] for role in roles if name in by_class[role]}
        for name in sorted(drawn, key=lambda name: -gain(name))
    }
    title = "mAP50-95 by class" if len(roles) == 1 else f"mAP50-95 by class, by the student’s gain over the {other}"
    if len(names) > len(drawn):
        title += f" (the {len(drawn)} of {len(names)} classes that differ most)"
    rows = [
        _row(report, roles, name, lambda model, name=name: model.map_by_class.get(name), ".4f", True)  # type: ignore[misc]
        for name in names
    ]
    all_classes = table("mAP50-95 by class", ["class", *roles, *_gaps(roles)], rows)
    return dot_plot(title, plotted) + details("All classes as a table", all_classes)


def _map_chart(report: Report) -> str:
    columns = [name for name in (report.epochs[-1] if report.epochs else {}) if "mAP50-95" in name]
    lines = [Line(_map_name(column, columns), _points(report, column)) for column in reversed(columns)]
    epochs = [row["epoch"] for row in report.epochs]
    for other in ("teacher", "baseline"):
        if other in report.models and epochs:
            level = report.models[other].map
            lines.insert(1 if other == "teacher" else 2, Line(other, [(epochs[0], level), (epochs[-1], level)], True))
    return line_chart("mAP50-95", lines, "epoch")


def _map_name(column: str, columns: Sequence[str]) -> str:
    outputs = {"(B)": "boxes", "(M)": "masks", "(P)": "keypoints"}
    return "student" if column == columns[-1] else f"student’s {outputs.get(column[-3:], column)}"


def _loss_charts(report: Report) -> str:
    charts = []
    for prefix, title in _LOSSES:
        columns = list(dict.fromkeys(name for row in report.epochs for name in row if name.startswith(prefix)))
        if prefix == "val/":  # results.csv has zeros there, because no teacher runs in validation
            columns = [name for name in columns if not name.startswith("val/dis_")]
        lines = [Line(name.removeprefix(prefix).removesuffix("_loss"), _points(report, name)) for name in columns]
        charts.append(line_chart(title, lines, "epoch"))
    return "".join(charts)


def _rate_chart(report: Report) -> str:
    columns = dict.fromkeys(name for row in report.epochs for name in row if name.startswith("lr/"))
    curves: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for column in columns:
        curves.setdefault(tuple(_points(report, column)), []).append(column.removeprefix("lr/"))
    return line_chart("Learning rate", [Line(", ".join(names), points) for points, names in curves.items()], "epoch")


def _points(report: Report, column: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[column]) for row in report.epochs if column in row]
