"""The log format of all programs: text for people, or one JSON object a line, whose keys are the same everywhere."""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

FORMAT_VARIABLE: Final = "DISTILL_LOG_FORMAT"
"""Environment variable of a training container: text or json. A job may set its own in spec.template."""
Facts = Callable[[logging.LogRecord], Mapping[str, object]]
"""What a line is about: job, attempt, execution, rank, step, as far as it is known."""


class JsonFormatter(logging.Formatter):
    """time, level, logger, message; the facts that are known; exception with its traceback."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._facts = facts

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._facts(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in line.items() if value is not None}, default=str)
