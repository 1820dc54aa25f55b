"""Prints views: as tables with rich, or as JSON and YAML for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from distill_api.constants import GROUP, SINGULAR
from distill_cli.cluster import Output
from distill_client import Job

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """The terminal, or plain text without colours where the output is a file or a pipe."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(soft_wrap=not terminal, highlight=False) if terminal else Console(width=200, highlight=False)


def data(value: Any, output: Output) -> None:
    """Print a view, or objects, as JSON or YAML."""
    plain = json.loads(json.dumps(_plain(value), default=_time))
    if output == Output.YAML:
        import yaml

        print(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), end="")
    else:
        print(json.dumps(plain, indent=2, ensure_ascii=False))


def names(jobs: Sequence[Job]) -> None:
    """Print jobs as kubectl's -o name does."""
    for job in jobs:
        print(f"{SINGULAR}.{GROUP}/{job.name}")


def objects(jobs: Sequence[Job], output: Output) -> None:
    """Print jobs as the API server has them, as a List as kubectl does."""
    data({"apiVersion": "v1", "kind": "List", "items": [job.raw for job in jobs]}, output)


def is_data(output: Output) -> bool:
    """Whether the output is for programs."""
    return output in (Output.JSON, Output.YAML)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _time(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
