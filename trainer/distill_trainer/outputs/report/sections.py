"""The sections of report.html about pictures, the student's start, its recipe, time, versions and files. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

import yaml

from distill_api.reading.mistakes import listed
from distill_trainer.outputs.report.elements import details, facts
from distill_trainer.outputs.report.examples import OTHER, SAME, Example, Examples
from distill_trainer.outputs.report.report import Inherited, Output, Report

_LISTED = 6
"""Names of layers that are listed for a reason; the others are counted."""


def pictures(examples: Examples) -> str:
    """Validation images as student, teacher and baseline see them."""
    if not examples.agrees and not examples.differs:
        return ""
    has_baseline = any("baseline" in example.agreement for example in [*examples.agrees, *examples.differs])
    agrees = "The student agrees with its teacher" + (", and the baseline less" if has_baseline else "")
    return (
        '<p class="note">Detections with a confidence of at least 0.25. '
        f'<span style="background:{SAME};color:#fff">&nbsp;Green&nbsp;</span>: student and teacher (or baseline and '
        f'teacher) agree, that is, one class and an IoU of at least 0.5. <span style="background:{OTHER};color:#fff">'
        "&nbsp;≠&nbsp;orange&nbsp;</span>: only this model finds it.</p>"
        + _grid(agrees, examples.agrees)
        + _grid("The student still differs from its teacher", examples.differs)
    )


def _grid(title: str, shown: Sequence[Example]) -> str:
    if not shown:
        return ""
    return f'<h3>{escape(title)}</h3><div class="pictures">{"".join(_picture(example) for example in shown)}</div>'


def _picture(example: Example) -> str:
    panels = "".join(
        f'<div><img src="{panel.uri}" width="{panel.width}" height="{panel.height}" alt="{escape(panel.text)}">'
        f"{panel.role}</div>"
        for panel in example.panels
    )
    agreement = ", ".join(f"{role} {value:.0%}" for role, value in example.agreement.items() if role != "teacher")
    return (
        f'<figure><div class="panels">{panels}</div>'
        f"<figcaption>{escape(example.name)}: agreement with the teacher: {escape(agreement)}</figcaption></figure>"
    )


def inherited(found: Inherited | None) -> str:
    """What the first weights took from the teacher's; empty if nothing."""
    if found is None:
        return ""
    rows = [
        ("parameters", f"{found.share:.1%}, in {found.tensors} of {found.of_tensors} tensors"),
        ("channels", f"by {escape(found.channels)}"),
        ("fitted", f"to the teacher's layers, on {found.images} training images" if found.images else "no, copied"),
    ]
    for reason, names in found.left.items():
        rows.append((f"not inherited: {reason}", escape(listed(names, _LISTED))))
    return facts(rows)


def recipe(report: Report) -> str:
    """What was distilled, and how."""
    training = report.training
    rows = []
    if training.recipe is not None:
        rows.append(("recipe: auto chose", f"<code>{escape(json.dumps(training.recipe))}</code>"))
    if training.loss is not None:
        rows.append(("distillation loss", escape(training.loss)))
        if training.weight is not None:
            rows.append(("weight", f"{training.weight:g}"))
        rows.append(("schedule of the weight", escape(training.schedule or "")))
    elif "teacher" not in report.models:
        rows.append(("teacher", "none: plain training"))
    return facts(rows)


def attempt(report: Report) -> str:
    """Interruptions, and where the time went."""
    rows = [("training steps, all attempts", f"{report.training.seconds:,.0f} s")]
    last = report.attempt
    if last is None:
        return facts(rows)
    before = "never interrupted" if last.number == 1 else f"after {_count(last.number - 1, 'earlier attempt')}"
    rows.insert(0, ("attempt that finished", f"{last.number}, {before}"))
    rows.append(("its size", f"{_count(last.nodes, 'node')}, {_count(last.ranks, 'rank')}"))
    seconds = {name: value for name, value in last.seconds.model_dump().items() if value > 0}
    whole = sum(seconds.values())
    if not whole:
        return facts(rows)
    colours = {name: number for number, name in enumerate(type(last.seconds).model_fields)}
    parts = "".join(
        f'<i class="c{colours[name]}" style="width:{value / whole:.2%}"></i>' for name, value in seconds.items()
    )
    legend = "".join(
        f'<li class="c{colours[name]}"><span aria-hidden="true">■</span> '
        f"{name} {value:,.0f} s ({value / whole:.0%})</li>"
        for name, value in seconds.items()
    )
    return (
        facts(rows)
        + f'<div class="bar" aria-hidden="true">{parts}</div><ul class="legend">{legend}</ul>'
        + '<p class="note">Where rank 0’s time went in the last attempt. The goodput of the whole job, and why earlier '
        f"attempts ended, are in its status: <code>distill why {escape(report.job)}</code>.</p>"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def versions(report: Report) -> str:
    """Versions of programs, digests of files, and the job's spec."""
    rows = [(name, escape(version)) for name, version in report.versions.items()]
    rows += [(f"{role}: {model.file}", f"<code>{model.sha256}</code>") for role, model in report.models.items()]
    rows.append(("data set", f"<code>{escape(report.dataset.digest)}</code>"))
    spec = yaml.safe_dump(report.spec, sort_keys=False, allow_unicode=True) if report.spec else ""
    return facts(rows) + (details("The job’s spec", f'<pre tabindex="0">{escape(spec)}</pre>') if spec else "")


def files(outputs: Sequence[Output]) -> str:
    """The outputs of the run, with links that work beside them, and why some are missing."""
    rows = []
    for output in outputs:
        links = " ".join(f'<a href="{escape(file)}">{escape(file)}</a>' for file in output.files)
        problem = f'<span class="worse">not written: {escape(output.problem)}</span>' if output.problem else ""
        rows.append((output.name, links + problem))
    return facts(rows)
