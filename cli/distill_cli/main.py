"""The `distill` command. Commands are registered here and live in files of their own."""

import typer

from distill_cli.run import run
from distill_cli.validate import validate

app = typer.Typer(
    name="distill",
    help="Distils large YOLO teachers into small students: on a cluster by a DistillJob, or here.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command()(run)
app.command()(validate)


@app.callback()
def _top() -> None:
    """Keeps commands named even while there is one."""


def main() -> None:
    """Entry point of `distill` and `kubectl distill`."""
    app()


if __name__ == "__main__":
    main()
