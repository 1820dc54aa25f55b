"""The `distill` command. Each subcommand is a module."""

import typer

from distill_cli.run import run
from distill_cli.validate import validate

app = typer.Typer(
    name="distill",
    help="Distils large YOLO teachers into small students, as described by a DistillJob.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command()(run)
app.command()(validate)


@app.callback()
def _top() -> None:
    """Makes typer require a subcommand even if there is only one."""


def main() -> None:
    """Entry point of `distill` and `kubectl distill`."""
    app()


if __name__ == "__main__":
    main()
