"""Renders report.html, a self-contained page, from a Report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape

from distill_trainer.outputs.report.chart import Line, line_chart
from distill_trainer.outputs.report.report import ModelReport, ModelRole, Report

_ORDER: Sequence[ModelRole] = ("student", "teacher", "baseline")
_STYLE = """
body{font:15px/1.45 sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.5em 0 1.5em}
th,td{padding:.25em .9em;border-bottom:1px solid #ddd;text-align:right;font-variant-numeric:tabular-nums}
th:first-child,td:first-child{text-align:left}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.6em}
.charts{display:flex;flex-wrap:wrap;gap:1em}.note{color:#666}.better{color:#176f2c}.worse{color:#a31515}
svg{max-width:100%;height:auto}
"""
_LOSS_PREFIX = "train/"


def report_html(report: Report) -> bytes:
    """The content of report.html."""
    roles = [role for role in _ORDER if role in report.models]
    sections = [
        f"<h1>{escape(report.job)}</h1>",
        _summary(report),
        "<h2>Models</h2>",
        _table(["", *roles, *_gaps(roles)], [_row(report, roles, *row) for row in _ROWS]),
        _how_measured(report),
        f"<h2>mAP50-95 by class</h2>{_classes(report, roles)}",
        f'<h2>Training</h2><div class="charts">{_map_chart(report)}{_loss_chart(report)}</div>',
        f"<h2>Files</h2>{_files(report)}",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.job)}</title><style>{_STYLE}</style></head><body>\n" + "\n".join(sections) + "\n"
        "</body></html>\n"
    ).encode()


def _summary(report: Report) -> str:
    training = report.training
    how = f"{training.epochs} of {training.planned} epochs, best epoch {training.best_epoch}"
    if training.loss is not None:
        how += f"; distilled with {training.loss}"
        how += f", weight {training.weight:g}" if training.weight is not None else ""
        how += f", {training.schedule}"
    if training.inherited is not None:
        how += f"; {training.inherited.share:.1%} of the first weights inherited from the teacher"
    if training.recipe is not None:
        how += f"; recipe: auto, that is {json.dumps(training.recipe)}"
    return (
        f"<p>Task {escape(report.task)}, images of {report.imgsz} px; {escape(report.dataset.config)} with "
        f"{report.dataset.images} validation images; {escape(how)}.</p>"
    )


def _how_measured(report: Report) -> str:
    measured = report.measured
    return (
        '<p class="note">Metrics: Ultralytics’ val on the validation split. Latency: median of single-image forward '
        f"passes at {report.imgsz} px, fused, fp32, without non-maximum suppression, on {escape(measured.device)} "
        f"({escape(measured.name)}), CPU threads: {measured.threads}, PyTorch {escape(measured.torch)}. Parameters and "
        "GFLOPs are for the fused model.</p>"
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
    names = list(dict.fromkeys(name for role in roles for name in report.models[role].map_by_class))
    rows = [
        _row(report, roles, name, lambda model, name=name: model.map_by_class.get(name), ".4f", True)  # type: ignore[misc]
        for name in names
    ]
    return _table(["class", *roles, *_gaps(roles)], rows)


def _map_chart(report: Report) -> str:
    column = next(
        (name for name in reversed(list(report.epochs[-1] if report.epochs else {})) if "mAP50-95" in name), ""
    )
    epochs = [row["epoch"] for row in report.epochs]
    lines = [Line("student", [(row["epoch"], row[column]) for row in report.epochs if column in row])]
    for other in ("teacher", "baseline"):
        if other in report.models and epochs:
            level = report.models[other].map
            lines.append(Line(other, [(epochs[0], level), (epochs[-1], level)], dashed=True))
    return line_chart(lines, "epoch", "mAP50-95")


def _loss_chart(report: Report) -> str:
    columns = list(dict.fromkeys(name for row in report.epochs for name in row if name.startswith(_LOSS_PREFIX)))
    lines = [
        Line(
            column.removeprefix(_LOSS_PREFIX).removesuffix("_loss"),
            [(row["epoch"], row[column]) for row in report.epochs if column in row],
        )
        for column in columns
    ]
    return line_chart(lines, "epoch", "training loss")


def _files(report: Report) -> str:
    rows = []
    for output in report.outputs:
        links = " ".join(f'<a href="{escape(file)}">{escape(file)}</a>' for file in output.files)
        problem = f'<span class="worse">not written: {escape(output.problem)}</span>' if output.problem else ""
        rows.append([escape(output.name), f'<div style="text-align:left">{links}{problem}</div>'])
    return _table(["", ""], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`head` is plain text; cells of `rows` are HTML."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
