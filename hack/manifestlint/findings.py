"""What kube-score and checkov say, as values."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

OK_GRADE = 10
"""kube-score's grade of a check that is met; what is below is at least a warning."""


@dataclass(frozen=True)
class Finding:
    """A check that an object does not meet."""

    check: str
    """kube-score's name of the check, or checkov's number."""
    target: str
    """Kind/name of the object; the name begins with that of the set of values."""
    text: str

    def __str__(self) -> str:
        return f"{self.target}: {self.check}: {self.text}"


def of_kube_score(report: Iterable[dict[str, Any]]) -> set[Finding]:
    """The findings in kube-score's JSON."""
    found = set()
    for scored in report:
        target = f"{scored['type_meta']['kind']}/{scored['object_meta']['name']}"
        for check in scored["checks"]:
            if check["skipped"] or check["grade"] >= OK_GRADE:
                continue
            told = [": ".join(filter(None, (c["path"], c["summary"]))) for c in check["comments"] or ()]
            found.add(Finding(check["check"]["id"], target, "; ".join(told) or check["check"]["comment"]))
    return found


def of_checkov(report: dict[str, Any]) -> set[Finding]:
    """The findings in checkov's JSON. Raises RuntimeError if it could not read a manifest."""
    summary = report.get("summary") or {}
    if summary.get("parsing_errors") or not summary.get("resource_count"):
        raise RuntimeError(f"checkov did not read the manifests: {summary}")
    found = set()
    for check in report["results"]["failed_checks"]:
        kind, _, name = check["resource"].split(".", 2)
        found.add(Finding(check["check_id"], f"{kind}/{name}", check["check_name"]))
    return found
