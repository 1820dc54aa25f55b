"""A control group per node, in every hierarchy that is mounted, and an end to all that runs in it."""

import errno
from fnmatch import fnmatch
from pathlib import Path

from testcluster.linux import tree
from testcluster.linux.processes import ProcessId

_PREFIX = "distill-"


def name(node: str) -> str:
    return f"{_PREFIX}{node}"


def hierarchies(mountinfo: str | None = None) -> list[Path]:
    """Mount points of all cgroup file systems: one of version 2, or several of version 1 and perhaps one of 2."""
    lines = (mountinfo if mountinfo is not None else Path("/proc/self/mountinfo").read_text()).splitlines()
    mounts: list[Path] = []
    for line in lines:
        place, _, system = line.partition(" - ")
        if system.split()[0] in ("cgroup", "cgroup2"):
            mounts.append(Path(place.split()[4]))
    return mounts


def create(node: str) -> None:
    """The group that a kubelet is told to make its pods' groups in; it does not make this one itself."""
    for hierarchy in hierarchies():
        group = hierarchy / name(node)
        group.mkdir(exist_ok=True)
        if (group / "cpuset.cpus").exists() and not (hierarchy / "cgroup.controllers").exists():
            # Version 1 starts a group with no processor and no memory, and nothing can join it.
            for file in ("cpuset.cpus", "cpuset.mems"):
                (group / file).write_text((hierarchy / file).read_text())


def existing() -> list[Path]:
    groups = (group for hierarchy in hierarchies() for group in tree.directories(hierarchy))
    return [group for group in groups if group.name.startswith(f"{_PREFIX}node")]


def of_pods(node: str, uid: str = "*") -> list[Path]:
    """The groups of the node's pod with this UID, or of all its pods; one in every hierarchy."""
    groups = (group for hierarchy in hierarchies() for group in tree.walk(hierarchy / name(node)))
    return [group for group in groups if fnmatch(group.name, f"pod{uid}")]


def members(group: Path) -> set[ProcessId]:
    """Every process in ``group`` and below."""
    found: set[ProcessId] = set()
    for directory in tree.walk(group):
        try:
            numbers = tree.read(directory / "cgroup.procs").split()
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # the answer of a threaded group: its processes are its parent's
                raise
            continue
        found |= {process for number in numbers if (process := ProcessId.of(int(number)))}
    return found


def remove(group: Path) -> None:
    """Remove ``group`` and all below it; OSError while there are processes in one of them."""
    for directory in tree.walk(group):
        with tree.vanishing():
            directory.rmdir()
