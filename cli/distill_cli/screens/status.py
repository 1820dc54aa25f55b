"""The status screen."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from distill_cli.screens.tables import bar, table
from distill_cli.views import text
from distill_cli.views.job.status import ProgressView, StatusView

_TONE = {"good": "green", "busy": "yellow", "bad": "bold red", "idle": "dim"}
_PARTS = {
    "training": "green", "validation": "cyan", "checkpoint stall": "magenta", "lost work": "red",
    "restarts": "yellow", "waiting for nodes": "bright_black",
}  # fmt: skip
_BLOCKS = {
    "training": "█", "validation": "▓", "checkpoint stall": "▒", "lost work": "x", "restarts": "▒",
    "waiting for nodes": "░",
}  # fmt: skip
_WIDTH = 40
SHOWN_ATTEMPTS = 5


def status(view: StatusView, attempts: int = SHOWN_ATTEMPTS) -> RenderableType:
    """Everything on one screen, the most important first."""
    return Group(*_parts(view, attempts))


def _parts(view: StatusView, attempts: int) -> Iterator[RenderableType]:
    head = Text.assemble((view.name, "bold"), "  ", (view.phase, _TONE[view.tone]), "  ", (view.times, "dim"))
    yield head.append(f"   {view.namespace}", style="dim")
    if view.headline:
        yield Text(view.headline, style=_TONE[view.tone] if view.tone == "bad" else "")
    yield Text(f"{view.subject} · {view.size}", style="dim")
    for note in view.notes:
        yield Text(note, style="yellow")
    numbers = _numbers(view)
    if numbers.row_count:
        yield from (Text(), numbers)
    if view.result:
        yield Text.assemble(("result  ", "bold"), (view.result, "green"))
    if view.goodput:
        yield from (Text(), *_goodput(view))
    if view.pods:
        yield from (Text(), _pods(view))
    if view.attempts:
        yield from (Text(), _attempts(view, attempts))
    if view.events:
        yield from (Text(), _events(view))


def _numbers(view: StatusView) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    if view.progress is not None:
        for row in _progress(view.progress):
            grid.add_row(*row)
    if view.student_map is not None or view.curves.student_map:
        teacher = f"teacher {text.score(view.teacher_map)}, gap {text.score(view.gap)}" if view.teacher_map else ""
        grid.add_row(
            "mAP", Text(text.spark(view.curves.student_map, _WIDTH), style="green"), f"{_score(view)}  {teacher}"
        )
    first = f"  {text.score(view.first_loss)} in the first epoch" if view.first_loss is not None else ""
    losses = {name: values for name, values in view.curves.losses.items() if values}
    if view.loss is not None and "dis" not in losses:
        losses = {**losses, "dis": []}
    for name, values in losses.items():
        last = view.loss if name == "dis" and view.loss is not None else values[-1]
        label = "distillation" if name == "dis" else name
        more = first if name == "dis" else ""
        grid.add_row(label, Text(text.spark(values, _WIDTH), style="cyan"), f"{text.score(last)}{more}")
    return grid


def _score(view: StatusView) -> str:
    return text.score(view.student_map if view.student_map is not None else view.curves.student_map[-1])


def _progress(progress: ProgressView) -> Iterator[tuple[RenderableType, ...]]:
    filled = bar(progress.fraction, _WIDTH, "green")
    eta = f", ETA {progress.eta}" if progress.eta != text.NONE else ""
    speed = f", {progress.images_per_second} images/s" if progress.images_per_second != text.NONE else ""
    yield f"epoch {progress.epoch}", filled, f"{progress.fraction:.1%}{eta}{speed}"
    saved = Text(progress.checkpoint, style="yellow" if progress.stale else "")
    yield "checkpoint", saved if progress.checkpoint else Text("none yet", style="dim"), f"at step {progress.step}"


def _goodput(view: StatusView) -> Iterator[RenderableType]:
    whole = sum(view.goodput.values())
    line, legend = Text(), Text()
    for word, seconds in view.goodput.items():
        cells = round(60 * seconds / whole)
        line.append(_BLOCKS[word] * cells, style=_PARTS[word])
        legend.append(f"{_BLOCKS[word]} ", style=_PARTS[word])
        legend.append(f"{word} {text.duration(seconds)}   ")
    yield Text.assemble(("goodput ", "bold"), f"{text.percent(view.ratio)}  ", line)
    yield Padding(legend, (0, 0, 0, 8))


def _pods(view: StatusView) -> Table:
    made = table("POD", "NODE", "STATE", "MESSAGE")
    shown = view.pods if len(view.pods) <= 8 else [pod for pod in view.pods if not pod.ok]
    for pod in shown:
        style = "green" if pod.ok else "yellow"
        made.add_row(str(pod.rank), pod.node or text.NONE, Text(pod.state, style=style), pod.detail)
    if len(shown) < len(view.pods):
        well = len(view.pods) - len(shown)
        made.add_row("", "", Text(f"{well} more are well", style="green"), "")
    return made


def _attempts(view: StatusView, count: int) -> Table:
    made = table("ATTEMPT", "NODES", "STARTED", "TOOK", "END", "STEPS", "LOST", "MESSAGE")
    for attempt in view.attempts[:count]:
        style = {"Failed": "red", "Disrupted": "yellow", "Succeeded": "green"}.get(attempt.outcome, "")
        end = attempt.reason or attempt.outcome
        when = attempt.started.astimezone().strftime("%d %b %H:%M")
        lost = f"{attempt.lost_steps:,}" if attempt.lost_steps else ""
        took = text.duration(attempt.seconds)
        cells = (str(attempt.nodes), when, took, Text(end, style=style), attempt.steps, lost, attempt.message)
        made.add_row(str(attempt.number), *cells)
    left = len(view.attempts) - count
    if left > 0:
        made.add_row("", "", "", "", Text(f"and {left} earlier", style="dim"))
    made.caption = Text(f"{view.restarts}", style="dim")
    made.caption_justify = "left"
    return made


def _events(view: StatusView) -> Table:
    made = table("EVENT", "REASON", "MESSAGE")
    for event in view.events:
        when = event.at.astimezone().strftime("%H:%M:%S") if event.at else text.NONE
        about = f"{event.about}: " if event.about else ""
        style = "yellow" if event.kind == "Warning" else ""
        made.add_row(when, Text(event.reason, style=style), f"{about}{event.message}")
    return made
