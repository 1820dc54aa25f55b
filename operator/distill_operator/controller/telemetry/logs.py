"""The format of the operator's log: text for people, or one JSON object a line, which says what job it is about."""

import logging
import sys
from contextvars import ContextVar
from typing import Any

from distill_api.constants import KIND
from distill_api.logs import JsonFormatter
from distill_operator.kube.pod_cache import Key

TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

_JOB: ContextVar[str | None] = ContextVar("job", default=None)
_ATTEMPT: ContextVar[int | None] = ContextVar("attempt", default=None)


def configure(level: str, log_format: str) -> None:
    """Write everything from `level` on to standard error, kopf's and asyncio's messages included."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(facts) if log_format == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLevelName(level)))


def about(key: Key, attempt: int | None = None) -> None:
    """What the current task logs from now on is about this job, and this attempt if it has one."""
    _JOB.set("/".join(key))
    _ATTEMPT.set(attempt or None)


def facts(record: logging.LogRecord) -> dict[str, Any]:
    """The job that a line is about, and the attempt."""
    return {
        "job": getattr(record, "job", None) or _of_kopf(record) or _JOB.get(),
        "attempt": getattr(record, "attempt", None) or _ATTEMPT.get(),
    }


def _of_kopf(record: logging.LogRecord) -> str | None:
    """The DistillJob that one of kopf's own messages is about."""
    reference = getattr(record, "k8s_ref", None) or {}
    about_job = reference.get("kind") == KIND
    return f"{reference.get('namespace')}/{reference.get('name')}" if about_job else None
