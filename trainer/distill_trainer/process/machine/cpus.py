"""How many CPUs this container may use; os.cpu_count() ignores its quota."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:  # another cgroup version, or a level that is not visible inside the container
        return None


def _levels(root: Path, path: str) -> Iterator[Path]:
    """A cgroup's directory and those of its ancestors, all of which can set limits."""
    current = root / path.strip("/")
    yield current
    while current != root:
        current = current.parent
        yield current


def _quotas(root: Path, own: Path) -> Iterator[float]:
    for line in (_read(own) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if ".." in path.split("/"):  # a cgroup that is not visible inside the container
            path = "/"
        if controllers == "":
            for level in _levels(root, path):
                quota, _, period = (_read(level / "cpu.max") or "max").partition(" ")
                if quota != "max":
                    yield int(quota) / int(period)
        elif "cpu" in controllers.split(","):
            for level in _levels(root / "cpu", path):
                quota = _read(level / "cpu.cfs_quota_us") or "-1"
                period = _read(level / "cpu.cfs_period_us") or "100000"
                if int(quota) > 0:
                    yield int(quota) / int(period)


def available_cpus(root: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """CPUs this process may use: the minimum of its affinity and its cgroup quotas (v1 and v2), at least 1."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, int(min([float(allowed), *_quotas(root, own)])))


def threads_per_rank(ranks_on_node: int, cpus: int) -> int:
    """Threads for one rank's CPU kernels: its share of the CPUs."""
    return max(1, cpus // ranks_on_node)


def worker_count(requested: int, ranks_on_node: int, cpus: int) -> int:
    """Data loader workers for one rank: `requested`, but at most the rank's share of the CPUs."""
    return min(requested, cpus // max(1, ranks_on_node))
