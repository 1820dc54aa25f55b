"""The options of kubectl: before the command and after it, and what the shell completes with them."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from distill_cli.main import app
from tests.client.conftest import Desk
from tests.support.cli.completed import completed


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_options_before_the_command_are_as_those_after_it(desk: Desk) -> None:
    desk.ok("apply", desk.file())
    before = ("--kubeconfig", str(desk.kubeconfig), "-n", desk.namespace)
    tiny = "distilljob.distilljob.dev/tiny\n"
    assert run(*before, "list", "-o", "name") == (0, tiny)
    assert run(*before, "list", "-o", "name", "-n", "default") == (0, ""), "the later one counts"
    code, output = run(*before, "--context", "nowhere", "list")
    assert (code, 'context "nowhere" does not exist' in output) == (4, True)


def test_a_command_without_a_cluster_refuses_them(tmp_path: Path) -> None:
    code, output = run("-n", "default", "init", str(tmp_path / "job.yaml"))
    assert (code, "No such option: --namespace" in output) == (2, True)
    assert not (tmp_path / "job.yaml").exists()


@pytest.mark.parametrize(
    "words",
    [
        "distill status --kubeconfig {file} -n {namespace} ti",
        "distill --kubeconfig {file} -n {namespace} status ti",
        "distill compare --namespace={namespace} --kubeconfig={file} ti",
        "distill cost --context distill -n {namespace} --kubeconfig {file} ti",
    ],
)
def test_names_of_jobs_are_those_of_the_options_before(desk: Desk, tmp_path: Path, words: str) -> None:
    desk.ok("apply", desk.file())
    nowhere = tmp_path / "nowhere"
    nowhere.write_text(yaml.safe_dump({"current-context": "absent"}))
    said = words.format(file=desk.kubeconfig, namespace=desk.namespace)
    assert completed(said, KUBECONFIG=str(nowhere)) == ["tiny"]
    assert completed(said.replace(desk.namespace, "default"), KUBECONFIG=str(desk.kubeconfig)) == []
