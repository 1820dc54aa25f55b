"""Exit codes of `distill`, for scripts. docs/cli.md lists them."""

from enum import IntEnum

from distill_client import errors


class Exit(IntEnum):
    """Exit codes; those of `distill run` are a training container's: 0, 78, 143, or another for a failure."""

    DONE = 0
    """Done; of doctor: no check fails."""
    FAILED = 1
    """The API server refuses the request, something was changed in between, or a check of doctor fails."""
    USAGE = 2
    """Wrong options or arguments."""
    NOT_FOUND = 3
    """The job, pod or file does not exist."""
    UNREACHABLE = 4
    """There is no cluster: no kubeconfig, no answer, or no login."""
    NOT_INSTALLED = 5
    """The cluster has no DistillJobs."""
    FORBIDDEN = 6
    """You lack a permission."""
    TIMED_OUT = 7
    """What was waited for did not happen in time."""
    JOB_FAILED = 8
    """The job that was watched is Failed."""
    DIFFERS = 9
    """apply --diff: the job would be created or changed."""
    INVALID = 78
    """The DistillJob file is invalid; of run: something must be changed first."""
    STOPPED = 143
    """Only run: stopped, with everything committed."""


_OF_ERROR: tuple[tuple[type[errors.ClientError], Exit], ...] = (
    (errors.NotFound, Exit.NOT_FOUND),
    (errors.Unreachable, Exit.UNREACHABLE),
    (errors.NotInstalled, Exit.NOT_INSTALLED),
    (errors.Forbidden, Exit.FORBIDDEN),
    (errors.TimedOut, Exit.TIMED_OUT),
    (errors.JobFailed, Exit.JOB_FAILED),
)


def exit_code(error: errors.ClientError) -> Exit:
    """The exit code for an error of the client."""
    return next((code for kind, code in _OF_ERROR if isinstance(error, kind)), Exit.FAILED)
