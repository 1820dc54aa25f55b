"""`distill completion`: the shell's completion script."""

from enum import StrEnum
from typing import Annotated

import typer
from typer._completion_shared import get_completion_script


class Shell(StrEnum):
    """Shells with a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def command(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="The shell.")],
    kubectl: Annotated[
        bool, typer.Option("--kubectl", help="Print the program kubectl_complete-distill, for kubectl distill.")
    ] = False,
) -> None:
    """Print the completion script, which also completes names of jobs: source <(distill completion bash).

    For kubectl distill: distill completion bash --kubectl > ~/bin/kubectl_complete-distill, and make it executable.
    """
    if kubectl:
        typer.echo(KUBECTL)
        return
    typer.echo(get_completion_script(prog_name="distill", complete_var="_DISTILL_COMPLETE", shell=shell))


KUBECTL = """#!/bin/sh
# kubectl runs this for completions of `kubectl distill`: one word a line, and at last how to complete.
words="distill"
for word in "$@"; do words="$words $word"; done
COMP_WORDS="$words" COMP_CWORD="$#" _DISTILL_COMPLETE=complete_bash distill
echo ":4"
"""
