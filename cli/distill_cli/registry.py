"""All commands: where each is, in which panel of the help, and its one line there.

The modules are imported only when their command is used, so that `distill --help` is quick.
"""

from typing import Final, NamedTuple


class Entry(NamedTuple):
    """One command."""

    module: str
    """Below distill_cli.commands; its `command` is what typer runs."""
    panel: str
    help: str


_LOCAL, _JOBS, _LOOK, _FILES, _SETUP = "On this machine", "Change jobs", "Look at jobs", "Results", "Set-up"

COMMANDS: Final[dict[str, Entry]] = {
    "init": Entry("local.init", _LOCAL, "Write a commented DistillJob file."),
    "validate": Entry("local.validate", _LOCAL, "Validate a DistillJob file, here or on a cluster."),
    "run": Entry("local.run", _LOCAL, "Run a DistillJob on this machine."),
    "apply": Entry("jobs.apply", _JOBS, "Create or change a job, and say before what will happen."),
    "suspend": Entry("jobs.suspend", _JOBS, "Commit a checkpoint and stop."),
    "resume": Entry("jobs.resume", _JOBS, "Let suspended jobs go on."),
    "scale": Entry("jobs.scale", _JOBS, "Change the number of nodes of an elastic job."),
    "restart": Entry("jobs.restart", _JOBS, "Start the next attempt of a job, or run it anew."),
    "delete": Entry("jobs.delete", _JOBS, "Delete jobs, and say before what is lost."),
    "prune": Entry("jobs.prune", _JOBS, "Delete old finished jobs; without --yes only list them."),
    "list": Entry("look.list", _LOOK, "List jobs."),
    "status": Entry("look.status", _LOOK, "Show all about a job; with -w keep it up to date."),
    "why": Entry("look.why", _LOOK, "Say why a job waits, restarted, is slow or failed."),
    "logs": Entry("look.logs", _LOOK, "Print the logs of a job's pods in the order of time."),
    "events": Entry("look.events", _LOOK, "List the events of a job and of its pods."),
    "top": Entry("look.top", _LOOK, "Show GPUs, images/s and goodput by job and by node."),
    "cost": Entry("look.cost", _LOOK, "Show GPU-hours: useful, and lost by cause."),
    "compare": Entry("look.compare", _LOOK, "Compare jobs: settings that differ, scores, cost."),
    "download": Entry("files.download", _FILES, "Download weights, report and other files of a job."),
    "open": Entry("files.open", _FILES, "Open a job's report, curves in TensorBoard, or board in Grafana."),
    "doctor": Entry("setup.doctor", _SETUP, "Check cluster, operator, rights, storage and GPUs."),
    "completion": Entry("setup.completion", _SETUP, "Print the shell's completion script."),
    "version": Entry("setup.version", _SETUP, "Print the versions of distill, operator and CRD."),
}
"""By name, in the order of the help."""
