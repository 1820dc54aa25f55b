"""A command refuses options that it would ignore: formats that it does not have, and those that exclude each other."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill_cli.cluster import Output
from distill_cli.main import app, load
from distill_cli.registry import COMMANDS

DATA = {Output.TABLE, Output.JSON, Output.YAML}
FORMATS = dict.fromkeys(("why", "events", "top", "cost", "compare", "doctor", "version"), DATA) | {
    "status": DATA | {Output.NAME},
    "list": set(Output),
}
REFUSED = [(name, refused) for name, formats in FORMATS.items() for refused in Output if refused not in formats]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def test_these_commands_have_formats() -> None:
    assert {name for name in COMMANDS if any(p.name == "output_format" for p in load(name).params)} == set(FORMATS)


@pytest.mark.parametrize(("name", "refused"), REFUSED)
def test_a_format_that_a_command_does_not_have_is_refused(name: str, refused: Output) -> None:
    job = () if name in ("top", "doctor", "version") else ("tiny",)
    code, said = run(name, *job, "-o", refused.value)
    assert (code, f"'{refused}' is not one of" in said) == (2, True), said
    assert all(f"'{known}'" in said for known in FORMATS[name])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rank", "3", "--all"), "--rank and --all exclude each other"),
        (("--operator", "--rank", "0"), "--operator excludes --rank, --all and --previous"),
        (("--operator", "--all"), "--operator excludes"),
        (("--operator", "-p"), "--operator excludes"),
    ],
)
def test_options_of_logs_that_exclude_each_other(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    code, output = run("logs", "tiny", *options, "--kubeconfig", str(tmp_path / "none"))
    assert (code, output.startswith(f"error: {said}")) == (2, True), output
