"""`distill` starts quickly, and every command is where the help says."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill_cli.commands.setup.completion import KUBECTL
from distill_cli.main import app, load
from distill_cli.reference import document
from distill_cli.registry import COMMANDS
from tests.support.cli.completed import completed
from tests.support.machine.python import ROOT, command, environment

HEAVY = ("torch", "ultralytics", "kubernetes", "pandas", "numpy", "pydantic", "distill_api", "yaml")
LOADED = "import json, sys; from distill_cli.main import main\ntry: main({arguments})\nexcept SystemExit: pass\n" \
    "json.dump(sorted(sys.modules), sys.stderr)"  # fmt: skip


def loaded(*arguments: str) -> set[str]:
    """The modules that a run of the command has imported."""
    script = LOADED.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=True)
    return set(json.loads(done.stderr))


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert {name for name in loaded(*arguments) if name.partition(".")[0] in HEAVY} == set()


@pytest.mark.parametrize("command", ["status", "apply", "logs", "version"])
def test_help_of_a_command_needs_no_cluster_library(command: str) -> None:
    found = {name.partition(".")[0] for name in loaded(command, "--help")}
    assert not found & {"torch", "ultralytics", "kubernetes", "pandas", "numpy"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module_and_help(name: str) -> None:
    command = load(name)
    assert command.name == name
    assert command.help
    assert len(COMMANDS[name].help) <= 66, "one line of an 80-column terminal"
    assert all(parameter.help for parameter in command.params), "every option says what it does"


def test_the_committed_page_is_what_the_commands_generate() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    assert page == document(), "run `make generate` and commit docs/commands.md"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_distill(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "distill_cli.main", "completion", shell],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    assert "_DISTILL_COMPLETE" in done.stdout


def test_kubectl_completes_commands_of_its_plugin(tmp_path: Path) -> None:
    start = "import sys; sys.argv = ['distill']; from distill_cli.main import main; main()"
    (tmp_path / "distill").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}"\n')
    (tmp_path / "kubectl_complete-distill").write_text(KUBECTL)
    for program in tmp_path.iterdir():
        program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    asked = [str(tmp_path / "kubectl_complete-distill"), "st"]
    done = subprocess.run(asked, capture_output=True, text=True, env=environment(PATH=path), check=True)
    assert done.stdout.split() == ["status", ":4"]


def test_the_shell_completes_commands_and_options() -> None:
    assert completed("distill st") == ["status"]
    assert "--watch" in completed("distill status --wa")


@pytest.mark.parametrize(
    ("name", "proposed"), [("statsu", "Did you mean status?"), ("aply", "Did you mean apply?"), ("xyz", "-h lists all")]
)
def test_a_wrong_command_is_told_with_the_one_that_was_meant(name: str, proposed: str) -> None:
    result = CliRunner().invoke(app, [name])
    assert result.exit_code == 2
    assert f"No such command '{name}'. {proposed}" in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fills_the_lines_of_the_terminal(name: str) -> None:
    """A line of a paragraph ends where the first word of the next one has no room."""
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"})
    lines = [line.strip() for line in result.output.partition("╭")[0].splitlines()]
    assert result.exit_code == 0
    ragged = [line for line, then in pairwise(lines) if line and then and len(f"{line} {then.split()[0]}") <= 78]
    assert ragged == []


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("init", "distill init [OPTIONS] [FILE]"),
        ("run", "distill run [OPTIONS] {FILE}"),
        ("completion", "distill completion [OPTIONS] {SHELL}"),
        ("delete", "distill delete [OPTIONS] {JOB}..."),
        ("compare", "distill compare [OPTIONS] {JOB}..."),
        ("cost", "distill cost [OPTIONS] [JOB]..."),
    ],
)
def test_the_usage_has_each_argument_once(name: str, usage: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"})
    assert f"Usage: {usage} " in " ".join(result.output.split()) + " "


def test_the_version_is_an_option_as_well() -> None:
    done = subprocess.run(command("distill_cli.main", "--version"), capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout) == (0, f"distill {version('distill-operator')}\n")
