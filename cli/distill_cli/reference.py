"""Writes docs/commands.md from the commands themselves: `python -m distill_cli.reference > docs/commands.md`."""

import sys
from collections.abc import Iterator
from textwrap import fill
from typing import Any

from distill_cli.exits import MEANING
from distill_cli.main import load
from distill_cli.options import CLUSTER_PANEL
from distill_cli.registry import COMMANDS

_WIDTH = 120
_HEAD = """\
# Commands of `distill`

Generated from the commands by `make generate`; do not edit. [cli.md](cli.md) says how to use them.

`kubectl distill` is the same program. Commands that talk to a cluster have the options of kubectl: `-n`/`--namespace`,
`--context`, `--kubeconfig`; they may also stand before the command. `distill --version` prints the version.

## Exit codes

| code | meaning |
|---|---|
"""


def document() -> str:
    """The page."""
    codes = "".join(f"| {int(code)} | {text} |\n" for code, text in MEANING.items())
    parts, panel = [_HEAD + codes], ""
    for name, entry in COMMANDS.items():
        if entry.panel != panel:
            panel = entry.panel
            parts.append(f"## {panel}\n")
        parts.append("\n".join(_command(name)))
    return "\n".join(parts) + "\n"


def _command(name: str) -> Iterator[str]:
    command = load(name)
    shown = [parameter for parameter in command.params if parameter.name != "help"]
    own = [p for p in shown if getattr(p, "rich_help_panel", None) != CLUSTER_PANEL]
    arguments = " ".join(map(_argument, (p for p in own if p.param_type_name == "argument")))
    yield f"### {name}\n"
    yield f"`distill {name}{f' {arguments}' if arguments else ''}`\n"
    yield "\n\n".join(fill(paragraph, _WIDTH) for paragraph in command.help.split("\n\n")) + "\n"
    rows = [_row(parameter) for parameter in own if parameter.param_type_name == "option"]
    if rows:
        yield "| option | what |\n|---|---|"
        yield "\n".join(rows) + "\n"


def _argument(argument: Any) -> str:
    name = f"{argument.metavar or argument.name.upper()}{'...' if argument.nargs != 1 else ''}"
    return name if argument.required else f"[{name}]"


def _row(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in sorted([*option.opts, *option.secondary_opts], key=len))
    kind = f" {option.metavar}" if option.metavar and not option.is_flag else ""
    default = option.default
    shown = not option.is_flag and default is not None and not callable(default)
    text = option.help or ""
    if shown and "default:" not in text:
        text = f"{text.rstrip('.')}; default: {getattr(default, 'value', default)}."
    return f"| {names}{kind} | {text} |"


def main() -> None:
    """Write the page to standard output."""
    sys.stdout.write(document())


if __name__ == "__main__":
    main()
