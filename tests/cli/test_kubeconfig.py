"""A kubeconfig that cannot be used is told in one line, with what to do; a login that fails names its plugin."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from distill_cli.main import app
from tests.support.machine.python import command, environment


def kubeconfig(path: Path, **user: Any) -> Path:
    """Of a cluster that nobody asks, with a user."""
    cluster = {"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "a", "context": {"cluster": "a", "user": "u"}}
    config = {
        "current-context": "a",
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(config))
    return path


def told(path: Path) -> list[str]:
    """What `distill list` says of it, without the remedy's mark; it must end with 4."""
    result = CliRunner().invoke(app, ["list", "--kubeconfig", str(path)])
    assert (result.exit_code, result.stdout) == (4, ""), result.exception
    return [line.replace("  try: ", "", 1) for line in result.stderr.splitlines()]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a: [", "it is not a YAML file: line 1: "),
        (b"just text", "it is not a kubeconfig"),
        (b"- a\n- b\n", "it is not a kubeconfig"),
        (b"contexts: 3", "it is not a kubeconfig"),
        (b"\xff\xfe\x00", "it is not a kubeconfig"),
        (b"{}", "Expected key current-context"),
        (None, "No configuration found"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_named_with_why(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_bytes(content)
    error, remedy = told(path)
    assert error.startswith(f"error: no cluster: cannot use the kubeconfig {path} (")
    assert why in error
    assert "--kubeconfig FILE" in remedy


def test_a_directory_is_no_kubeconfig(tmp_path: Path) -> None:
    assert told(tmp_path)[0] == f"error: no cluster: cannot use the kubeconfig {tmp_path} (Is a directory)"


@pytest.mark.parametrize(("hint", "remedy"), [(None, "install it, on the PATH"), ("see\n there", "see there")])
def test_a_login_plugin_that_is_not_installed_is_named(tmp_path: Path, hint: str | None, remedy: str) -> None:
    """As a process: in pytest's own, what the kubernetes package logs goes elsewhere."""
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "nosuchplugin", "installHint": hint}
    path = kubeconfig(tmp_path / "config", exec=plugin)
    list_jobs = command("distill_cli.main", "list", "--kubeconfig", path)
    done = subprocess.run(list_jobs, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (4, "")
    told = ["error: no login: the login plugin nosuchplugin is not installed", f"  try: {remedy}"]
    assert done.stderr.splitlines() == told


def test_a_login_plugin_that_fails_is_quoted(tmp_path: Path) -> None:
    program = "import sys; sys.exit('your session\\nis over')"
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": ["-c", program]}
    error, remedy = told(kubeconfig(tmp_path / "config", exec=plugin))
    assert error.startswith(f"error: no login: the login plugin {sys.executable} failed (")
    assert error.endswith("your session is over)")
    assert remedy.startswith("log in to the cluster again")
