"""The checks of `distill doctor`."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distill_cli.views.doctor import Check, Level

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red", Level.UNKNOWN: "dim"}


def doctor(checks: Sequence[Check], context: str, server: str) -> RenderableType:
    """A line for each check; the mend below it."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column()
    for check in checks:
        grid.add_row(Text(str(check.level), style=_STYLES[check.level]), check.name, check.says)
        if check.mend:
            grid.add_row("", "", Text.assemble(("do: ", "green"), check.mend))
    failed = sum(check.level == Level.FAIL for check in checks)
    warned = sum(check.level == Level.WARN for check in checks)
    last = f"{failed} failed, {warned} warnings" if failed or warned else "all is well"
    return Group(Text(f"{context}  {server}", style="dim"), grid, Text(last, style="bold"))
