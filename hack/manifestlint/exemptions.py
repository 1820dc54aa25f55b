"""Findings that are meant to be as they are: each has its reason in exemptions.yaml."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from manifestlint.findings import Finding

FILE = Path(__file__).with_name("exemptions.yaml")


@dataclass(frozen=True)
class Exemption:
    """Checks that some objects need not meet, and why."""

    checks: tuple[str, ...]
    objects: tuple[str, ...]
    """Patterns of Kind/name."""
    because: str

    def covers(self, finding: Finding) -> bool:
        return finding.check in self.checks and any(fnmatchcase(finding.target, pattern) for pattern in self.objects)


def read(file: Path = FILE) -> list[Exemption]:
    """The exemptions of a file. Raises ValueError if one has no reason."""
    exemptions = []
    for entry in yaml.safe_load(file.read_text()):
        if not str(entry.get("because") or "").strip():
            raise ValueError(f"{file.name}: {entry['checks']} has no reason; say why in `because`")
        exemptions.append(Exemption(tuple(entry["checks"]), tuple(entry["objects"]), entry["because"]))
    return exemptions


def explain(findings: Iterable[Finding], exemptions: Iterable[Exemption]) -> tuple[list[Finding], list[str]]:
    """The findings that no exemption covers; and the checks and patterns in exemptions that cover nothing."""
    findings, exemptions = list(findings), list(exemptions)
    unexplained = [finding for finding in findings if not any(e.covers(finding) for e in exemptions)]
    return unexplained, [part for exemption in exemptions for part in _unused(exemption, findings)]


def _unused(exemption: Exemption, findings: Iterable[Finding]) -> list[str]:
    covered = [finding for finding in findings if exemption.covers(finding)]
    found = {finding.check for finding in covered}
    idle = [p for p in exemption.objects if not any(fnmatchcase(finding.target, p) for finding in covered)]
    return [*(check for check in exemption.checks if check not in found), *idle]
