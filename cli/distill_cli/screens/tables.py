"""Tables in kubectl's style: no lines, capital headings."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from distill_cli.views import text
from distill_cli.views.compare import CompareView
from distill_cli.views.job.attempts import Cost
from distill_cli.views.job.pods import EventRow
from distill_cli.views.row import Row
from distill_cli.views.top import TopView

TONES = {
    "Running": "green", "Succeeded": "green", "Failed": "bold red", "Recovering": "yellow", "Starting": "cyan",
    "Pending": "cyan", "Queued": "cyan", "Suspended": "dim", "Deleting": "dim",
}  # fmt: skip


def table(*headings: str, right: Sequence[str] = ()) -> Table:
    """An empty table."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", no_wrap=heading not in _WRAPPED)
    return made


_WRAPPED = ("MESSAGE", "JOBS", "PAIR", "LOST BY CAUSE")


def phase(word: str) -> Text:
    """A phase in its colour."""
    return Text(word, style=TONES.get(word, ""))


def rows(found: Sequence[Row], *, namespaces: bool, wide: bool) -> Table:
    """distill list."""
    more = ("REASON", "PAIR", "IMAGES/S", "GOODPUT") if wide else ()
    first = ("NAMESPACE",) if namespaces else ()
    made = table(*first, "NAME", "PHASE", "NODES", "EPOCH", "MAP", "GAP", "DIS-LOSS", "ETA", "RESTARTS", "AGE", *more)
    for r in found:
        wider = (r.reason, r.pair, r.images_per_second, r.goodput) if wide else ()
        name = (r.namespace, r.name) if namespaces else (r.name,)
        cells = (r.nodes, r.epoch, r.student_map, r.gap, r.loss, r.eta, r.restarts, r.age, *wider)
        made.add_row(*name, phase(r.phase), *cells)
    return made


def events(found: Sequence[EventRow]) -> Table:
    """distill events: times are local."""
    made = table("TIME", "TYPE", "REASON", "OBJECT", "MESSAGE")
    for e in found:
        style = "yellow" if e.kind == "Warning" else ""
        often = f" (×{e.count})" if e.count > 1 else ""
        when = e.at.astimezone().strftime("%d %b %H:%M:%S") if e.at else text.NONE
        made.add_row(when, Text(e.kind, style=style), e.reason, e.about or "job", e.message + often)
    return made


def costs(found: Sequence[Cost]) -> RenderableType:
    """distill cost."""
    made = table(
        "JOB", "TOTAL", "USEFUL", "STALLED", "LOST", "EARLIER", "WAITED", "UNIT", "LOST BY CAUSE",
        right=("TOTAL", "USEFUL", "STALLED", "LOST", "EARLIER", "WAITED"),
    )  # fmt: skip
    for c in found:
        causes = "  ".join(f"{reason} {hours:,.2f}" for reason, hours in c.lost.items())
        useful = f"{c.useful:,.2f} ({text.percent(c.useful_share)})"
        lost = f"{sum(c.lost.values()):,.2f}"
        made.add_row(
            c.name, f"{c.total:,.2f}", useful, f"{c.stalled:,.2f}", lost, f"{c.earlier:,.2f}",
            f"{c.waiting:,.2f}", c.unit, causes,
        )  # fmt: skip
    note = Text("\nWAITED: not all pods had a node; those that had one held it. It is not in TOTAL.", style="dim")
    return Group(made, note)


def top(view: TopView, *, namespaces: bool) -> RenderableType:
    """distill top."""
    first = ("NAMESPACE",) if namespaces else ()
    numbers = ("PODS", "GPUS", "IMAGES/S", "PER GPU", "GOODPUT")
    jobs = table(*first, "JOB", "PHASE", *numbers, right=numbers)
    for use in view.jobs:
        name = (use.namespace, use.name) if namespaces else (use.name,)
        speed, each = text.number(use.images_per_second), text.number(use.per_accelerator, 1)
        counts = (str(use.pods), str(use.accelerators), speed, each, text.percent(use.goodput))
        jobs.add_row(*name, phase(use.phase), *counts)
    nodes = table("NODE", "GPUS", "", "JOBS")
    for node in view.nodes:
        of = f"{node.used}/{node.capacity}" if node.capacity is not None else str(node.used)
        share = node.used / node.capacity if node.capacity else 0.0
        nodes.add_row(node.name, of, bar(share, 16, "green") if node.capacity else Text(), ", ".join(node.jobs))
    return Group(jobs, Text(), nodes) if view.nodes else jobs


def bar(share: float, width: int, style: str) -> Text:
    """A share as a bar."""
    filled = round(width * min(1.0, max(0.0, share)))
    return Text("█" * filled, style=style) + Text("░" * (width - filled), style="dim")


def compared(view: CompareView) -> RenderableType:
    """distill compare: what differs, what came out, and the curves of mAP."""
    made = table("", *view.names)
    for title, lines in (("settings that differ", view.settings), ("outcome", view.outcome)):
        if lines:
            made.add_row(Text(title, style="bold"))
        for name, cells in lines.items():
            shown = [
                Text(cell, style="bold green" if name == "student mAP" and i == view.best else "")
                for i, cell in enumerate(cells)
            ]
            made.add_row(f"  {name}", *shown)
    for title, values in (
        ("mAP by epoch", [c.student_map for c in view.curves]),
        ("distillation loss", [c.losses.get("dis", []) for c in view.curves]),
    ):
        if any(values):
            made.add_row(Text(title, style="bold"), *[Text(text.spark(v, 24), style="cyan") for v in values])
    return made


def show(out: Console, what: RenderableType) -> None:
    """Print it."""
    out.print(what)
