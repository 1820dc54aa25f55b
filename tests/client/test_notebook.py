"""The example notebook, cell by cell, beside the real operator."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from testcluster import ControlPlane
from tests.client.conftest import run_next_reader
from tests.support.apiserver.api import wait_for
from tests.support.apiserver.kubelet import KubeletServer
from tests.support.apiserver.team import RESULT, Team
from tests.support.machine.python import ROOT

NOTEBOOK = ROOT / "examples/notebook/distill_client.ipynb"
WEIGHTS = b"weights of the student"


def kubeconfig(plane: ControlPlane, namespace: str, folder: Path) -> Path:
    """The administrator's, with a namespace."""
    config = yaml.safe_load(plane.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = namespace
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def test_the_notebook_trains_watches_and_downloads(
    plane: ControlPlane, team: Team, kubelet: KubeletServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(plane, team.ns, tmp_path)))
    monkeypatch.chdir(tmp_path)
    best = kubelet.volume / "tiny/weights/best.pt"
    best.parent.mkdir(parents=True)
    best.write_bytes(WEIGHTS)
    cells = ["".join(c["source"]) for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    names: dict[str, Any] = {"print": lambda *words: printed.append(" ".join(map(str, words)))}
    printed: list[str] = []

    def run() -> None:
        for cell in cells:
            exec(compile(cell, str(NOTEBOOK), "exec"), names)

    monkeypatch.setitem(RESULT.__dict__, "sha256", hashlib.sha256(WEIGHTS).hexdigest())
    run_next_reader(team.api, team.ns)
    with ThreadPoolExecutor(1) as notebook:
        done = notebook.submit(run)
        try:
            wait_for(lambda: team.raw() or done.done(), 30)
            team.train(1, step=100, committed=90)
            wait_for(lambda: any("epoch 2/4, mAP 0.4" in line for line in printed), 30, lambda: printed)
            team.finish(1)
            done.result(timeout=120)
        finally:
            team.api.delete("DistillJob", team.ns, "tiny")  # a notebook that still watches it goes on, and ends
    assert f"student {RESULT.student_map} teacher {RESULT.teacher_map}" in printed
    assert any(line.startswith("1 Succeeded Completed") for line in printed)
    assert (tmp_path / "best.pt").read_bytes() == WEIGHTS
