"""Removes everything of a cluster from the machine, even after a crash."""

import shutil
import time
from pathlib import Path

from testcluster.linux import cgroups, mounts, network
from testcluster.linux.processes import ProcessId, ProcessTable, end, kill_all
from testcluster.nodes import host


def tear_down(state: Path) -> None:
    """End all processes, then remove mounts, control groups, namespaces and files. Idempotent."""
    _end_processes(ProcessTable(state / "processes"))
    mounts.undo(state)  # before rmtree, which would delete the contents of mounted directories
    _remove_groups()
    network.remove()
    host.restore(state)
    if state.exists():
        shutil.rmtree(state)


def leftovers(state: Path) -> list[str]:
    """Remains of a cluster; empty after ``tear_down``."""
    found = [f"process {process.pid}" for process in _ours(ProcessTable(state / "processes"))]
    found += [f"mount {mount}" for mount in mounts.below(state)]
    found += [f"control group {group}" for group in cgroups.existing()]
    found += [f"network namespace {name}" for name in network.existing()]
    return found + ([f"directory {state}"] if state.exists() else [])


def _ours(processes: ProcessTable) -> set[ProcessId]:
    """The cluster's processes, found by record, by network namespace and by control group.

    Network namespaces find containerd's shims, which are not recorded; control groups find the processes of pods, whose
    network namespaces have no name.
    """
    recorded = {process for name in processes.names if (process := processes.get(name))}
    networks = (network.members(name) for name in network.existing())
    groups = (cgroups.members(group) for group in cgroups.existing())
    return recorded.union(*networks, *groups)


def _end_processes(processes: ProcessTable) -> None:
    # End kubelets first, because they restart containers.
    kubelets = [name for name in processes.names if name.endswith("-kubelet")]
    end(process for name in kubelets if (process := processes.get(name)))
    kill_all(lambda: _ours(processes))


def _remove_groups() -> None:
    deadline = time.monotonic() + 5
    while groups := cgroups.existing():
        for group in groups:
            try:
                cgroups.remove(group)
            except OSError:  # a killed process stays in its group for a moment
                if time.monotonic() > deadline:
                    raise
        time.sleep(0.05)
