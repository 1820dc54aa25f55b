"""The parts of the one-machine cluster that decide what is ours to end, unmount and remove."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from testcluster import Cluster, settings
from testcluster.artifacts import debian
from testcluster.cluster import Shape
from testcluster.linux import cgroups, mounts, tree
from testcluster.linux.processes import ProcessId, ProcessTable, end, kill_all
from testcluster.nodes.node import Node

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


def test_a_browser_is_only_installed_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian.missing_browser() == [debian.BROWSER]
    (tmp_path / "google-chrome").write_text("#!/bin/sh\n")
    (tmp_path / "google-chrome").chmod(0o755)
    assert debian.missing_browser() == []


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


def test_of_a_process_that_has_ended_nothing_is_told_and_no_signal_is_sent() -> None:
    child = subprocess.Popen(["sleep", "60"])
    process = ProcessId.of(child.pid)
    assert process is not None
    while process.command != ["sleep", "60"]:  # it is a copy of this process until it has become sleep
        time.sleep(0.01)
    assert process.name == "sleep"
    assert process.signal(signal.SIGKILL)
    child.wait()
    assert (process.name, process.command, process.signal(signal.SIGKILL)) == ("", [], False)
    successor = ProcessId(os.getpid(), process.start_ticks)  # as if this process had got the number
    assert (successor.name, successor.command, successor.signal(signal.SIGCONT)) == ("", [], False)


def test_everything_that_is_listed_is_killed_also_what_appears_meanwhile() -> None:
    children: list[subprocess.Popen[bytes]] = []

    def listed() -> set[ProcessId]:
        if len(children) < 3:
            children.append(subprocess.Popen(["sleep", "60"]))
        return {process for child in children if (process := ProcessId.of(child.pid))}

    assert kill_all(listed) == 3
    assert [child.wait() for child in children] == [-signal.SIGKILL] * 3


def test_what_cannot_be_killed_is_an_error_and_no_endless_loop() -> None:
    with pytest.raises(RuntimeError, match="cannot be killed: \\[4194303\\]"):
        kill_all(lambda: {ProcessId(4194303, 1)})


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


@pytest.fixture
def vanishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # noqa: ARG001  (it ends after this)
    """What is called ``gone`` comes and goes: every listing of the directory shows it, whoever uses it is too late."""
    scandir, listdir = os.scandir, os.listdir
    files: dict[Path, bool] = {}

    @contextmanager
    def shown(directory: Path) -> Iterator[None]:
        gone = directory / "gone"
        if gone.exists():
            files[gone] = gone.is_file()
        elif gone in files:
            gone.touch() if files[gone] else gone.mkdir()
        yield
        if gone in files:
            with monkeypatch.context() as real:
                real.setattr(os, "scandir", scandir)
                gone.unlink() if files[gone] else shutil.rmtree(gone)

    def scanned(directory: Any = ".") -> Any:
        with shown(Path(directory)), scandir(directory) as found:
            return nullcontext(iter(list(found)))

    def listed(directory: Any = ".") -> list[str]:
        with shown(Path(directory)):
            return listdir(directory)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", scanned)
        patched.setattr(os, "listdir", listed)
        yield


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node whose only cgroup hierarchy is the directory ``cgroup``."""
    monkeypatch.setattr(cgroups, "hierarchies", lambda: [tmp_path / "cgroup"])
    addresses = settings.NodeAddresses(99)
    return Node(addresses, tmp_path / "state", ProcessTable(tmp_path / "processes"))


@pytest.fixture
def group(tmp_path: Path) -> Callable[..., Path]:
    """Makes a control group below the node's, with this process in it unless told otherwise."""

    def made(name: str, members: str = f"{os.getpid()}\n") -> Path:
        path = tmp_path / "cgroup" / cgroups.name("node99") / name
        path.mkdir(parents=True)
        (path / "cgroup.procs").write_text(members)
        return path

    return made


@pytest.mark.usefixtures("vanishing")
def test_pods_that_end_while_groups_are_listed_hide_no_other_pod(node: Node, group: Callable[..., Path]) -> None:
    myself = ProcessId.of(os.getpid())
    for name in ("kubepods/poda", "kubepods/burstable/podb", "kubepods/podz"):
        (group(name, members="") / "gone").mkdir()
        (group(f"{name}/container") / "gone").mkdir()
    (group("kubepods/gone") / "podc").mkdir()
    assert node.pod_process_ids() == node.pod_process_ids("b") == node.process_ids == {myself}
    assert node.pod_process_ids("c") == set()


def test_a_group_that_is_removed_before_it_is_read_has_no_members(
    group: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (errno.ENOENT, errno.ENODEV):  # before its file was opened, and after
        error = OSError(number, os.strerror(number))

        def read(_: Path, error: OSError = error) -> bytes:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", read)
            assert cgroups.members(group(f"removed-{number}")) == set()


def test_an_error_that_is_no_vanishing_is_raised(group: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(OSError, match="Too many open files"):
        cgroups.members(group("pod"))


@pytest.mark.usefixtures("vanishing")
def test_groups_that_others_remove_are_no_error_and_those_in_use_stay(tmp_path: Path) -> None:
    (tmp_path / "group" / "pod" / "gone").mkdir(parents=True)
    (tmp_path / "group" / "gone").mkdir()
    cgroups.remove(tmp_path / "group")
    assert not (tmp_path / "group").exists()
    (tmp_path / "group" / "pod" / "used").mkdir(parents=True)
    (tmp_path / "group" / "pod" / "used" / "tasks").touch()
    with pytest.raises(OSError, match="not empty"):
        cgroups.remove(tmp_path / "group")


def test_a_walk_survives_directories_that_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "stays" / "below").mkdir(parents=True)  # and keeps removedirs from removing tmp_path
    churn = (
        "import os\nwhile True: os.makedirs('a/b/c', exist_ok=True); os.rmdir('a/b/c'); os.rmdir('a/b'); os.rmdir('a')"
    )
    with subprocess.Popen([sys.executable, "-c", churn], cwd=tmp_path) as child:
        try:
            until = time.monotonic() + 1
            while time.monotonic() < until:
                assert {tmp_path, tmp_path / "stays", tmp_path / "stays" / "below"} <= set(tree.walk(tmp_path))
            assert child.poll() is None
        finally:
            child.kill()


@pytest.mark.usefixtures("vanishing")
def test_blobs_that_the_runtime_removes_meanwhile_are_no_layers(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = node.directory / "containerd" / "io.containerd.content.v1.content" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for name, content in (("gone", "layer"), ("manifest", "{}"), ("layer", "layer")):
        (blobs / name).write_text(content)
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(Node, "_ctr", lambda _, *arguments: called.append(arguments))
    node.import_image(Path("image.tar"))
    assert called == [("images", "import", "image.tar"), ("content", "rm", "sha256:layer")]


def test_a_mount_that_its_owner_undoes_is_no_error_and_one_that_stays_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> str:
        raise RuntimeError("umount: /state/a: not mounted")

    left: Iterator[list[Path]] = iter([[Path("/state/a")], []])
    monkeypatch.setattr(mounts, "run", refused)
    monkeypatch.setattr(mounts, "below", lambda _: next(left))
    mounts.undo(Path("/state"))
    monkeypatch.setattr(mounts, "below", lambda _: [Path("/state/a")])
    with pytest.raises(RuntimeError, match="cannot unmount /state/a: umount: /state/a: not mounted"):
        mounts.undo(Path("/state"))


def test_a_cluster_whose_start_was_interrupted_is_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its programs run and its nodes are ready, but they have no GPUs: a job on it would wait for ever."""
    monkeypatch.setenv("DISTILL_CLUSTER_STATE", str(tmp_path))
    Shape(nodes=1, gpus=2, audit=False, port=1).save(tmp_path)
    monkeypatch.setattr(ProcessTable, "get", lambda *_: 1)
    monkeypatch.setattr("testcluster.controlplane.controlplane.ControlPlane.ready", True)
    monkeypatch.setattr(Cluster, "_heartbeats", lambda _: {"node0": "now"})
    cluster = Cluster.running()
    assert cluster is not None
    assert not cluster.healthy
    (tmp_path / "started").touch()
    assert cluster.healthy
