"""Errors that end a training run. The launcher converts each into an exit code and a termination message."""

from distill_api.constants import ExitCode
from distill_api.reasons import Reason


class TrainerError(Exception):
    """An error with a reason. Its message is one line that says what is wrong, where, and what to do.

    Raise `Permanent` or `Retryable`, not this class.
    """

    exit_code: int

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.reason = reason

    @property
    def message(self) -> str:
        """The message."""
        return str(self.args[0])


class Permanent(TrainerError):
    """Invalid configuration, data, models or storage: a retry would fail in the same way."""

    exit_code = int(ExitCode.PERMANENT)


class Retryable(TrainerError):
    """A failure that a retry may not have."""

    exit_code = 1


class Stopped(Exception):
    """The run stopped on request, at the same step on every rank.

    `step` is the last finished step, `committed_step` the last step in a committed checkpoint, as far as this rank
    knows.
    """

    exit_code = int(ExitCode.STOPPED)

    def __init__(self, step: int, committed_step: int) -> None:
        super().__init__(f"stopped on request at step {step}; committed step {committed_step}")
        self.step = step
        self.committed_step = committed_step


class Checked(Exception):
    """The job was to be checked only, and nothing is wrong. The message says what was found, in one line."""
