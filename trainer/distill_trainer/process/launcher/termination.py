"""Reports how an attempt ended: one line in the log, and the termination message for Kubernetes."""

import logging
import sys
from pathlib import Path

from distill_api.pod.report import TerminationMessage
from distill_trainer.process.outcome import Ending
from distill_trainer.process.telemetry.logs import as_json

log = logging.getLogger(__name__)


def conclude_attempt(ending: Ending, termination: Path | None) -> int:
    """Log the ending, write the termination message, and return the exit code."""
    log_ending(ending)
    if termination is not None:
        write_termination_message(termination, ending.message)
    return ending.exit_code


def log_ending(ending: Ending) -> None:
    """One line about the ending on stderr, and one that says which rank failed first; nothing if training is done."""
    message = ending.message
    if message.outcome == "done":
        return
    if message.outcome == "failed" and message.rank is not None:
        log.error("rank %d is the first that failed", message.rank, extra={"facts": {"failedRank": message.rank}})
    if as_json():
        severity = logging.INFO if message.outcome == "stopped" else logging.ERROR
        log.log(severity, "%s", message.message, extra={"facts": {"reason": message.reason, "step": message.step}})
    elif message.outcome == "stopped":
        print(message.message, file=sys.stderr)
    else:
        print(f"error: {message.reason}: {message.message}", file=sys.stderr)


def write_termination_message(path: Path, message: TerminationMessage) -> None:
    """Write the message to the file that Kubernetes reads. Errors are logged: the exit code has the outcome too."""
    try:
        # Kubernetes mounts this single file, so it cannot be replaced by a rename.
        path.write_text(message.to_json(), encoding="utf-8")
    except OSError as error:
        log.error("cannot write the termination message to %s: %s", path, error.strerror)
