"""Control groups of nodes and pods, in all mounted hierarchies."""

import errno
from fnmatch import fnmatch
from pathlib import Path

from testcluster.linux import tree
from testcluster.linux.processes import ProcessId

_PREFIX = "distill-"


def name(node: str) -> str:
    return f"{_PREFIX}{node}"


def hierarchies(mountinfo: str | None = None) -> list[Path]:
    """Mount points of all cgroup file systems: one of version 2, or several of version 1 and possibly one of 2."""
    lines = (mountinfo if mountinfo is not None else Path("/proc/self/mountinfo").read_text()).splitlines()
    mounts: list[Path] = []
    for line in lines:
        place, _, system = line.partition(" - ")
        if system.split()[0] in ("cgroup", "cgroup2"):
            mounts.append(Path(place.split()[4]))
    return mounts


def create(node: str) -> None:
    """Create the group in which a node's kubelet creates the groups of its pods."""
    for hierarchy in hierarchies():
        group = hierarchy / name(node)
        group.mkdir(exist_ok=True)
        if (group / "cpuset.cpus").exists() and not (hierarchy / "cgroup.controllers").exists():
            # A new version 1 group has no CPUs and memory nodes, and no process can join it.
            for file in ("cpuset.cpus", "cpuset.mems"):
                (group / file).write_text((hierarchy / file).read_text())


def existing() -> list[Path]:
    groups = (group for hierarchy in hierarchies() for group in tree.directories(hierarchy))
    return [group for group in groups if group.name.startswith(f"{_PREFIX}node")]


def of_pods(node: str, uid: str = "*") -> list[Path]:
    """The groups of the node's pod with this UID, or of all its pods, in all hierarchies."""
    groups = (group for hierarchy in hierarchies() for group in tree.walk(hierarchy / name(node)))
    return [group for group in groups if fnmatch(group.name, f"pod{uid}")]


def members(group: Path) -> set[ProcessId]:
    """All processes in ``group`` and below."""
    found: set[ProcessId] = set()
    for directory in tree.walk(group):
        try:
            numbers = tree.read(directory / "cgroup.procs").split()
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a threaded group; its parent lists its processes
                raise
            continue
        found |= {process for number in numbers if (process := ProcessId.of(int(number)))}
    return found


def remove(group: Path) -> None:
    """Remove ``group`` and all groups below it. Raises OSError if one of them has processes."""
    for directory in tree.walk(group):
        with tree.vanishing():
            directory.rmdir()
