"""Jobs as a released version has stored them, and screens as text."""

from datetime import UTC, datetime
from io import StringIO
from typing import Any

import yaml
from rich.console import Console, RenderableType

from distill_client import Job
from tests.support.operator.golden import newest

NOW = datetime(2026, 11, 23, 12, 5, tzinfo=UTC)


def stored(name: str, **status: Any) -> Job:
    """A job as a released version has stored it; `status` replaces fields."""
    raw = yaml.safe_load((newest() / f"{name}.yaml").read_text())
    raw["metadata"]["creationTimestamp"] = "2026-11-23T12:00:00Z"
    return Job(raw | {"status": raw["status"] | status})


def drawn(what: RenderableType, width: int = 120) -> str:
    out = Console(file=StringIO(), width=width)
    out.print(what)
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


ALL = sorted(path.stem for path in newest().glob("*.yaml") if path.stem != "crd")
