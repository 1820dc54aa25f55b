"""Exit codes of `distill`, for scripts."""

from enum import IntEnum

from distill_client import errors


class Exit(IntEnum):
    """Exit codes; those of `distill run` are a training container's."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    NOT_INSTALLED = 5
    FORBIDDEN = 6
    TIMED_OUT = 7
    JOB_FAILED = 8
    DIFFERS = 9
    INVALID = 78
    INTERRUPTED = 130
    STOPPED = 143


MEANING: dict[Exit, str] = {
    Exit.DONE: "done; doctor: no check fails",
    Exit.FAILED: "the API server refuses the request, something was changed in between, a file cannot be read or"
    " written, or a check of doctor fails; run: the training failed, and can be tried again",
    Exit.USAGE: "wrong options or arguments, or a question that nobody can answer (`--yes`)",
    Exit.NOT_FOUND: "the job, pod or file does not exist",
    Exit.UNREACHABLE: "there is no cluster: no kubeconfig, no answer, or no login",
    Exit.NOT_INSTALLED: "the cluster has no DistillJobs",
    Exit.FORBIDDEN: "you lack a permission",
    Exit.TIMED_OUT: "what was waited for did not happen in time",
    Exit.JOB_FAILED: "the job that was watched is Failed",
    Exit.DIFFERS: "`apply --diff`: the job would be created or changed",
    Exit.INVALID: "the DistillJob file is invalid; run: something must be changed first",
    Exit.INTERRUPTED: "interrupted with Ctrl-C",
    Exit.STOPPED: "run: stopped with Ctrl-C, everything is committed",
}
"""For docs/commands.md."""

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
