"""Network namespaces: one for the control plane, with a bridge as the switch, and one per node."""

from contextlib import suppress
from pathlib import Path

from testcluster.linux import tree
from testcluster.linux.processes import ProcessId, run
from testcluster.settings import CONTROL_PLANE_ADDRESS, NODE_NETWORK, POD_NETWORK, SERVICE_NETWORK, NodeAddresses

_PREFIX = "distill-"
_SWITCH = "switch"
_RUN = Path("/run/netns")
CONTROL_PLANE = f"{_PREFIX}control-plane"


def namespace(node: str) -> str:
    return f"{_PREFIX}{node}"


def path(name: str) -> Path:
    return _RUN / name


def enter(name: str) -> list[str]:
    """A command prefix that runs a program in the namespace. `ip netns exec` would hide cgroups by remounting /sys."""
    return ["nsenter", f"--net={path(name)}", "--"]


def members(name: str) -> set[ProcessId]:
    """All processes in the network namespace ``name``."""
    try:
        wanted = path(name).stat()
    except FileNotFoundError:
        return set()
    found: set[ProcessId] = set()
    for directory in tree.directories(Path("/proc")):
        if not directory.name.isdigit():
            continue
        with tree.vanishing(), suppress(PermissionError):  # processes of other users
            inside = (directory / "ns" / "net").stat()
            # Compare the device too, because the inode number alone is not unique.
            if (inside.st_dev, inside.st_ino) == (wanted.st_dev, wanted.st_ino):
                process = ProcessId.of(int(directory.name))
                found |= {process} if process else set()
    return found


def existing() -> list[str]:
    return [file.name for file in tree.entries(_RUN) if file.name.startswith(_PREFIX)]


def create(nodes: list[NodeAddresses]) -> None:
    """Create namespaces, links and routes, so that all nodes, their pods and the control plane are connected."""
    _add_namespace(CONTROL_PLANE)
    _ip(CONTROL_PLANE, "link", "add", _SWITCH, "type", "bridge")
    _ip(CONTROL_PLANE, "address", "add", f"{CONTROL_PLANE_ADDRESS}/{NODE_NETWORK.prefixlen}", "dev", _SWITCH)
    _ip(CONTROL_PLANE, "link", "set", _SWITCH, "up")
    for node in nodes:
        _connect(node)
    for node in nodes:
        _ip(CONTROL_PLANE, "route", "add", str(node.pods), "via", str(node.address))
        for other in nodes:
            if other is not node:
                _ip(namespace(node.name), "route", "add", str(other.pods), "via", str(other.address))
    # The control plane has no kube-proxy, so it reaches services through the first node's.
    _ip(CONTROL_PLANE, "route", "add", str(SERVICE_NETWORK), "via", str(nodes[0].address))
    # Packets for unused pod addresses must not loop between nodes by their default routes.
    _ip(CONTROL_PLANE, "route", "add", "unreachable", str(POD_NETWORK))


def _connect(node: NodeAddresses) -> None:
    inside = namespace(node.name)
    _add_namespace(inside)
    _ip(CONTROL_PLANE, "link", "add", node.name, "type", "veth", "peer", "name", "eth0", "netns", inside)
    _ip(CONTROL_PLANE, "link", "set", node.name, "master", _SWITCH, "up")
    _ip(inside, "address", "add", f"{node.address}/{NODE_NETWORK.prefixlen}", "dev", "eth0")
    _ip(inside, "link", "set", "eth0", "up")
    _ip(inside, "route", "add", "default", "via", str(CONTROL_PLANE_ADDRESS))
    # Without it, responses between two pods of a node would cross the bridge without kube-proxy's rules.
    _sysctl(inside, "net.bridge.bridge-nf-call-iptables=1", required=False)


def set_link(node: str, *, up: bool) -> None:
    """Connect or disconnect a node at the switch; its addresses and routes stay."""
    _ip(CONTROL_PLANE, "link", "set", node, "up" if up else "down")


def remove() -> None:
    """Delete the cluster's namespaces with all links, bridges, routes and rules in them."""
    for name in existing():
        run("ip", "netns", "delete", name)


def _add_namespace(name: str) -> None:
    run("ip", "netns", "add", name)
    _ip(name, "link", "set", "lo", "up")
    _sysctl(name, "net.ipv4.ip_forward=1")


def _sysctl(name: str, setting: str, *, required: bool = True) -> None:
    ignore = [] if required else ["-e"]
    run(*enter(name), "sysctl", "-q", *ignore, "-w", setting)


def _ip(name: str, *arguments: str) -> None:
    run("ip", "-netns", name, *arguments)
