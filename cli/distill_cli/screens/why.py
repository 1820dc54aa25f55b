"""The answers of `distill why`."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from distill_cli.views.job.why import WhyView


def why(view: WhyView) -> RenderableType:
    """Title, sentences, evidence and remedy of each finding."""
    return Group(*_parts(view))


def _parts(view: WhyView) -> Iterator[RenderableType]:
    yield Text.assemble((view.name, "bold"), f"  {view.phase}")
    for finding in view.findings:
        yield Text()
        mark, style = ("!", "bold yellow") if finding.bad else ("·", "bold")
        reason = f"  {finding.reason}" if finding.reason else ""
        yield Text.assemble((f"{mark} ", style), (finding.title, "bold"), (reason, "dim"))
        yield Padding(Text(finding.says), (0, 0, 0, 2))
        for line in finding.evidence:
            yield Padding(Text.assemble(("seen: ", "dim"), line), (0, 0, 0, 4))
        if finding.todo:
            yield Padding(Text.assemble(("do:   ", "green"), finding.todo), (0, 0, 0, 4))
    if not view.findings:
        yield Text("Nothing is recorded about this job yet.")
