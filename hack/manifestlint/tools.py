"""Gets and runs kube-score and checkov. Neither asks anything of the network while it runs."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from manifestlint.findings import Finding, of_checkov, of_kube_score
from testcluster.artifacts import gobuild, pythontools
from testcluster.artifacts.binaries import Part
from testcluster.settings import KUBERNETES_VERSION

KUBE_SCORE_VERSION = "1.20.0"
CHECKOV_PINS = Path(__file__).with_name("checkov.txt")
"""checkov and all that it needs."""


def _get_kube_score(directory: Path) -> None:
    module = "github.com/zegl/kube-score"
    gobuild.build(module, KUBE_SCORE_VERSION, {"kube-score": f"{module}/cmd/kube-score"}, directory)


KUBE_SCORE = Part("kube-score", f"kube-score-{KUBE_SCORE_VERSION}", ("kube-score",), _get_kube_score)
CHECKOV = pythontools.environment("checkov", CHECKOV_PINS)


def findings(folder: Path) -> set[Finding]:
    """What both tools find in the YAML files of a folder. Raises RuntimeError if one cannot read them."""
    files = sorted(folder.glob("*.yaml"))
    return of_kube_score(_kube_score(files)) | of_checkov(_checkov(folder))


def _kube_score(files: list[Path]) -> list[dict[str, Any]]:
    minor = ".".join(KUBERNETES_VERSION.split(".")[:2])
    options = ["--output-format", "json", "--all-default-optional", "--kubernetes-version", f"v{minor}"]
    return list(_json([str(KUBE_SCORE.location / "kube-score"), "score", *options, *map(str, files)]))


def _checkov(folder: Path) -> dict[str, Any]:
    options = ["--framework", "kubernetes", "--quiet", "--compact", "--skip-download", "--output", "json"]
    python = str(CHECKOV.location / "bin" / "python")
    return dict(_json([python, "-m", "checkov.main", "--directory", str(folder), *options]))


def _json(command: list[str]) -> Any:
    """What the tool prints. It sees no settings of this machine: no API key, no policies, no configuration in HOME."""
    with tempfile.TemporaryDirectory(prefix="manifestlint-home-") as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home, "LOG_LEVEL": "ERROR"}
        done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"{command[0]} ended with {done.returncode} and no report:\n{done.stderr[-2000:]}") from None
