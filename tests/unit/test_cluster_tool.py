"""The parts of the one-machine cluster that decide what is ours to end, unmount and remove."""

import os
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

from testcluster import settings
from testcluster.linux import cgroups, mounts
from testcluster.linux.processes import ProcessId, ProcessTable, end

MOUNTINFO = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
31 30 0:28 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
38 30 0:35 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 27 0:40 / /state/node0/with\040blank rw - tmpfs tmpfs rw
51 50 0:41 / /state/node0/with\040blank/inner rw - tmpfs tmpfs rw
52 27 0:42 / /state-of-another rw - tmpfs tmpfs rw
""".strip()


def test_finds_control_groups_of_both_versions() -> None:
    assert cgroups.hierarchies(MOUNTINFO) == [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/unified")]


def test_mounts_come_innermost_first_and_only_those_below() -> None:
    outer = Path("/state/node0/with blank")
    assert mounts.below(Path("/state"), MOUNTINFO) == [outer / "inner", outer]


def test_address_ranges_do_not_overlap() -> None:
    nodes = [settings.NodeAddresses(index) for index in range(settings.MAX_NODES)]
    networks = [settings.NODE_NETWORK, settings.SERVICE_NETWORK, *(node.pods for node in nodes)]
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))
    assert all(node.address in settings.NODE_NETWORK for node in nodes)


def test_a_process_of_the_same_number_but_another_start_is_not_ours() -> None:
    myself = ProcessId.of(os.getpid())
    assert myself is not None
    later = ProcessId(myself.pid, myself.start_ticks + 1)
    assert myself.alive
    assert not later.alive
    assert end([later]) == []
    assert myself.alive


def test_a_later_session_ends_what_an_earlier_one_started(tmp_path: Path) -> None:
    ProcessTable(tmp_path).start("sleeper", ["sleep", "60"])
    later = ProcessTable(tmp_path)
    assert later.names == ["sleeper"]
    process = later.get("sleeper")
    assert process is not None
    later.stop("sleeper")
    assert not process.alive
    assert later.names == []


def test_programs_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from testcluster.linux.processes import ProcessTable\n"
        "table = ProcessTable(Path(sys.argv[1]), die_with_parent=True)\n"
        "table.start('sleeper', ['sleep', '60'])\n"
        "while Path(f'/proc/{table.get(\"sleeper\").pid}/comm').read_text() != 'sleep\\n': pass\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=30)
    deadline = time.monotonic() + 5
    while ProcessTable(tmp_path).get("sleeper"):
        assert time.monotonic() < deadline, "the program outlives its parent"
        time.sleep(0.02)
