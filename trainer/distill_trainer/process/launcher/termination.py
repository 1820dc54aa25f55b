"""Telling how an attempt ended: a line in the log, and the termination message that Kubernetes keeps."""

import logging
import sys
from pathlib import Path

from distill_api.pod.report import TerminationMessage
from distill_trainer.process.outcome import Ending

log = logging.getLogger(__name__)


def conclude_attempt(ending: Ending, termination: Path | None) -> int:
    """Tell log and Kubernetes how the attempt ended; return the exit code."""
    announce(ending)
    if termination is not None:
        write_termination_message(termination, ending.message)
    return ending.exit_code


def announce(ending: Ending) -> None:
    """Tell the log how the attempt ended, in one line."""
    message = ending.message
    if message.outcome == "done":
        return
    if message.outcome == "stopped":
        print(message.message, file=sys.stderr)
    else:
        print(f"error: {message.reason}: {message.message}", file=sys.stderr)


def write_termination_message(path: Path, message: TerminationMessage) -> None:
    """Write the message where Kubernetes looks for it. A failure is logged: the exit code still tells the outcome."""
    try:
        # Kubernetes mounts this one file, so it cannot be replaced by a rename.
        path.write_text(message.to_json(), encoding="utf-8")
    except OSError as error:
        log.error("the termination message cannot be written to %s: %s", path, error.strerror)
