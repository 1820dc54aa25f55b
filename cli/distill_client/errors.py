"""Errors of the client. Each is one line that says what is wrong, and `remedy` says what to do."""


class ClientError(Exception):
    """A request that failed, and what the user can do about it."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class Unreachable(ClientError):
    """There is no cluster: no kubeconfig, no such context, no answer, or no login."""


class NotInstalled(ClientError):
    """The cluster does not know DistillJobs."""


class NotFound(ClientError):
    """The object does not exist."""


class Forbidden(ClientError):
    """The user lacks a permission."""


class Conflict(ClientError):
    """The object already exists, or was changed in between."""


class Refused(ClientError):
    """The API server refuses the request; `causes` has one line for each rule that is broken."""

    def __init__(self, message: str, remedy: str = "", causes: tuple[str, ...] = ()) -> None:
        super().__init__(message, remedy)
        self.causes = causes


class TimedOut(ClientError):
    """What was waited for did not happen in time."""


class JobFailed(ClientError):
    """The job that was waited for is Failed."""
