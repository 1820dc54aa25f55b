"""How a training run can end other than by being done. The launcher turns each into an exit code and a message."""

from distill_api.constants import ExitCode
from distill_api.reasons import Reason


class TrainerError(Exception):
    """An end that has a name. Its text is one line that says what is wrong, where, and what to do.

    Raise `Permanent` or `Retryable`, never this class itself.
    """

    exit_code: int

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.reason = reason

    @property
    def message(self) -> str:
        """The one line."""
        return str(self.args[0])


class Permanent(TrainerError):
    """Wrong configuration, data, models or storage: the same attempt again would end the same way."""

    exit_code = int(ExitCode.PERMANENT)


class Retryable(TrainerError):
    """A failure that another attempt may not meet."""

    exit_code = 1


class Stopped(Exception):
    """The run stopped on request, at the same step on every rank.

    `step` is the last step finished, `committed_step` the last one safe on the checkpoints volume, as far as
    this rank knows.
    """

    exit_code = int(ExitCode.STOPPED)

    def __init__(self, step: int, committed_step: int) -> None:
        super().__init__(f"stopped on request at step {step}; committed step {committed_step}")
        self.step = step
        self.committed_step = committed_step
