"""What `make lint` makes of the findings of kube-score and checkov, and that neither can be missing unnoticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manifestlint import exemptions, tools
from manifestlint.exemptions import Exemption
from manifestlint.findings import Finding, of_checkov, of_kube_score
from tests.support.machine.python import ROOT

SCORED = {
    "type_meta": {"kind": "Deployment"},
    "object_meta": {"name": "op"},
    "checks": [
        {
            "check": {"id": "container-resources", "comment": "why"},
            "grade": grade,
            "skipped": skipped,
            "comments": [{"path": "operator", "summary": "CPU limit is not set"}],
        }
        for grade, skipped in ((1, False), (1, True), (10, False))
    ],
}
LIMITS = Finding("container-resources", "Deployment/op", "operator: CPU limit is not set")


def test_a_check_that_kube_score_grades_below_ok_is_a_finding() -> None:
    assert of_kube_score([SCORED]) == {LIMITS}


def test_a_check_that_fails_in_checkov_is_a_finding() -> None:
    failed = {"check_id": "CKV_K8S_8", "resource": "Pod.distill-system.op.test", "check_name": "Liveness Probe"}
    report = {"summary": {"resource_count": 1, "parsing_errors": 0}, "results": {"failed_checks": [failed]}}
    assert of_checkov(report) == {Finding("CKV_K8S_8", "Pod/op.test", "Liveness Probe")}


@pytest.mark.parametrize("summary", [{}, {"resource_count": 0}, {"resource_count": 9, "parsing_errors": 1}])
def test_manifests_that_checkov_did_not_read_are_no_success(summary: dict[str, int]) -> None:
    with pytest.raises(RuntimeError, match="did not read"):
        of_checkov({"summary": summary, "results": {"failed_checks": []}})


@pytest.mark.parametrize(
    ("exemption", "unexplained", "unused"),
    [
        (Exemption(("container-resources",), ("Deployment/*",), "why"), [], []),
        (Exemption(("container-resources",), ("Pod/*",), "why"), [LIMITS], ["container-resources", "Pod/*"]),
        (Exemption(("container-resources", "other"), ("Deployment/*",), "why"), [], ["other"]),
        (Exemption(("container-resources",), ("Deployment/*", "Job/*"), "why"), [], ["Job/*"]),
    ],
    ids=["needed", "another object", "a check too many", "an object too many"],
)
def test_an_exemption_covers_what_it_names_and_is_needed(
    exemption: Exemption, unexplained: list[Finding], unused: list[str]
) -> None:
    assert exemptions.explain([LIMITS], [exemption]) == (unexplained, unused)


def test_an_exemption_without_a_reason_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "exemptions.yaml"
    file.write_text("[{checks: [a], objects: [b], because: ' '}]")
    with pytest.raises(ValueError, match="no reason"):
        exemptions.read(file)


def test_checkov_is_pinned_with_all_that_it_needs() -> None:
    pins = tools.CHECKOV_PINS.read_text().splitlines()
    assert [pin for pin in pins if pin.startswith("checkov==")]
    assert all("==" in pin for pin in pins)


@pytest.mark.parametrize(("ci", "status", "told"), [("", 0, "SKIP  tool"), ("true", 1, "FAIL  tool")])
def test_a_tool_that_cannot_be_had_is_told_and_fails_ci(ci: str, status: int, told: str) -> None:
    """With the function `check` of the script itself; the command is the linter without Go and with an empty cache."""
    head, _, _ = (ROOT / "scripts" / "lint.sh").read_text().partition("\nmapfile")
    script = head.replace('cd "$(dirname "$0")/.." || exit', "")
    linter = f"{sys.executable} -m manifestlint"
    paths = ":".join(str(ROOT / folder) for folder in ("crds", "operator", "hack"))
    with_nothing = f"env PATH=/nowhere DISTILL_CACHE=/proc/none PYTHONPATH={paths} {linter}"
    command = ["bash", "-c", f"{script}\ncheck tool {with_nothing}\nexit $failed"]
    done = subprocess.run(command, env={**os.environ, "CI": ci}, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[0]) == (status, told)
    assert "cannot be had" in done.stdout
