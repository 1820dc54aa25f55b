"""One answer of `distill why`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One answer."""

    title: str
    reason: str
    """The machine-readable reason, as in docs/reasons.md; empty if there is none."""
    says: str
    """What happened, in sentences."""
    evidence: list[str] = field(default_factory=list)
    todo: str = ""
    """What the user can do; empty for nothing."""
    bad: bool = True
    """Whether it is a problem."""
