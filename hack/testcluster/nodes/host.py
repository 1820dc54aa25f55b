"""Undoes changes that the programs of a cluster make outside its state directory and that cannot be disabled."""

import json
import re
import socket
from contextlib import suppress
from pathlib import Path

from testcluster.linux import mounts, tree
from testcluster.nodes.config import NETWORK_NAME, RUNTIME

_CHANGED_BY_KUBELET = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
_SYSCTLS = Path("/proc/sys")
_SHIM_SOCKETS = Path("/run/containerd/s")
_LOG_LINKS = Path("/var/log/containers")
_CNI_RESULTS = Path("/var/lib/cni/results")
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
# A kubelet that finds this directory empty when it starts (after removing sockets) sets its node's GPUs to 0.
_GPUS_ARE_KEPT = _DEVICE_PLUGINS / "distill-testcluster"
_NAMESPACES = Path("/run/netns")
_LEAVES = (_SHIM_SOCKETS, _LOG_LINKS, _CNI_RESULTS, _DEVICE_PLUGINS)
_DIRECTORIES = (_NAMESPACES, *(directory for leaf in _LEAVES for directory in (leaf, leaf.parent)))
_FILE = "host.json"


def remember(state: Path) -> None:
    """Record the state of the machine before the cluster starts, and prepare it."""
    sysctls = {name: (_SYSCTLS / name).read_text() for name in _CHANGED_BY_KUBELET if (_SYSCTLS / name).exists()}
    absent = [str(directory) for directory in _DIRECTORIES if not directory.exists()]
    (state / _FILE).write_text(json.dumps({"sysctls": sysctls, "absent": absent}))
    _DEVICE_PLUGINS.mkdir(parents=True, exist_ok=True)
    _GPUS_ARE_KEPT.touch()


def restore(state: Path) -> None:
    """Restore the recorded state of the machine. Call this after all processes have ended."""
    _remove_files(state)
    try:
        before = json.loads((state / _FILE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return
    for name, value in before["sysctls"].items():
        if (_SYSCTLS / name).read_text() != value:
            (_SYSCTLS / name).write_text(value)
    if str(_NAMESPACES) in before["absent"] and _NAMESPACES.is_dir() and not tree.entries(_NAMESPACES):
        mounts.undo(_NAMESPACES)  # ip mounts the directory on itself when it creates the first namespace
    if str(_SHIM_SOCKETS) in before["absent"]:  # then all sockets are the cluster's, even those without a record
        for socket_file in tree.entries(_SHIM_SOCKETS):
            _unlink_dead(socket_file)
    for directory in map(Path, before["absent"]):
        with suppress(OSError):  # it does not exist, or another program uses it now
            directory.rmdir()


def _remove_files(state: Path) -> None:
    containers = (one for node in tree.directories(state) for one in tree.directories(node / "run" / RUNTIME))
    for address in filter(None, (tree.read(container / "address") for container in containers)):
        Path(address.decode().strip().removeprefix("unix://")).unlink(missing_ok=True)
    for link in tree.entries(_LOG_LINKS):
        with tree.vanishing():
            if link.is_symlink() and link.readlink().is_relative_to(state):
                link.unlink()
    for result in tree.entries(_CNI_RESULTS):
        if match := re.fullmatch(f"{NETWORK_NAME}-(.*)-eth0", result.name):
            result.unlink(missing_ok=True)
            (_CNI_RESULTS / f"cni-loopback-{match[1]}-lo").unlink(missing_ok=True)
    _GPUS_ARE_KEPT.unlink(missing_ok=True)
    _unlink_dead(_DEVICE_PLUGINS / "kubelet.sock")


def _unlink_dead(path: Path) -> None:
    """Remove a socket on which no process listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        in_use = probe.connect_ex(str(path)) == 0
    if not in_use:
        path.unlink(missing_ok=True)
