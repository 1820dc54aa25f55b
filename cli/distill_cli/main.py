"""The `distill` command, also `kubectl distill`."""

from collections.abc import Sequence
from errno import EPIPE
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from distill_cli.options import CLUSTER_OPTIONS, Context, Kubeconfig, Namespace
from distill_cli.registry import COMMANDS


class LazyGroup(TyperGroup):
    """Knows every command by name and help, and imports one only when it is used."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, entry in COMMANDS.items():
            self.add_command(TyperCommand(name, help=entry.help, short_help=entry.help, rich_help_panel=entry.panel))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name, and what follows, with the options of kubectl that stand before it."""
        if args and args[0] not in COMMANDS and not ctx.resilient_parsing:
            ctx.fail(_unknown(args[0]))
        name, stub, rest = super().resolve_command(ctx, args)
        before = [(f"--{option}", ctx.params.get(option)) for option in CLUSTER_OPTIONS]
        given = [word for option, value in before if value is not None for word in (option, str(value))]
        return name, stub and load(str(name)), [*given, *rest]

    def invoke(self, ctx: Any) -> Any:
        """Run the command. A file or directory that cannot be used is an error of one line."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == EPIPE:  # whoever read the output has ended: so do we, without a word
                raise
            from distill_cli.cluster import stop
            from distill_cli.exits import Exit

            stop(f"{error.filename}: {error.strerror}" if error.filename else str(error), Exit.FAILED)


def load(name: str) -> Any:
    """Import a command."""
    entry = COMMANDS[name]
    module = import_module(f"distill_cli.commands.{entry.module}")
    # Without typer's own completion options, and with the exit codes and the help of the whole.
    alone = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
    function = module.command
    alone.command(name, help=_unwrapped(function.__doc__), rich_help_panel=entry.panel)(function)
    return typer.main.get_command(alone)


def _unwrapped(text: str) -> str:
    """Each paragraph in one line, which the help then breaks as the terminal is wide."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _unknown(name: str) -> str:
    from distill_api.reading.mistakes import nearest

    near = nearest(name, COMMANDS)
    return f"No such command '{name}'. " + (f"Did you mean {' or '.join(near)}?" if near else "-h lists all commands.")


app = typer.Typer(
    name="distill",
    cls=LazyGroup,
    help="Distils large YOLO teachers into small students, as described by a DistillJob.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from distill_cli.commands.setup.version import own_version

        typer.echo(f"distill {own_version()}")
        raise typer.Exit


@app.callback()
def _top(
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """The options before the command: `resolve_command` hands them on."""
    del namespace, context, kubeconfig, version


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `distill` and `kubectl distill`."""
    import sys

    from typer._completion_classes import completion_init

    completion_init()
    kubectl = sys.argv[0].rpartition("/")[2] == "kubectl-distill"
    app(args=arguments, prog_name="kubectl distill" if kubectl else None, complete_var="_DISTILL_COMPLETE")


if __name__ == "__main__":
    main()
