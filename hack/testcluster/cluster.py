"""A whole cluster: control plane and nodes, each in a network namespace, on one Linux machine as root."""

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from testcluster import settings
from testcluster.artifacts import binaries, pauseimage
from testcluster.controlplane import addons
from testcluster.controlplane.access import KubernetesAccess
from testcluster.controlplane.controlplane import ControlPlane, Options
from testcluster.external import ExternalCluster
from testcluster.linux import forward, network
from testcluster.linux.processes import ProcessId, ProcessTable, kill_all
from testcluster.nodes import host, loading
from testcluster.nodes.config import PAUSE_IMAGE
from testcluster.nodes.node import Node
from testcluster.settings import NodeAddresses
from testcluster.teardown import tear_down

_FORWARDER = "forwarder"
_STARTED = "started"
"""A file that says that the cluster has started completely, with labels and GPUs."""
_ROLE = "node-role.kubernetes.io/worker="


@dataclass(frozen=True)
class Shape:
    """The settings of a cluster, saved in its state directory."""

    nodes: int
    gpus: int
    audit: bool
    port: int
    """Port of the API server on the host's loopback address."""

    def save(self, state: Path) -> None:
        (state / "shape.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, state: Path) -> "Shape | None":
        try:
            return cls(**json.loads((state / "shape.json").read_text()))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None


class Cluster(KubernetesAccess):
    """A running cluster. It keeps running after the process that started it, until ``down``."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._state = settings.state_dir()
        self._processes = ProcessTable(self._state / "processes")
        options = Options(
            self._state / "control-plane",
            address=str(settings.CONTROL_PLANE_ADDRESS),
            advertise=True,
            audit=shape.audit,
            prefix=tuple(self.nsenter_prefix()),
        )
        self._control_plane = ControlPlane(options, self._processes)
        self._control_plane.server = f"https://127.0.0.1:{shape.port}"
        self._nodes = {
            addresses.name: Node(addresses, self._state / addresses.name, self._processes)
            for addresses in map(NodeAddresses, range(shape.nodes))
        }
        super().__init__(self._control_plane.kubeconfig)

    @classmethod
    def up(
        cls, nodes: int = 2, gpus: int = 2, *, audit: bool = False, report: Callable[[str], None] = print
    ) -> "Cluster":
        """Start a cluster of ``nodes`` nodes with ``gpus`` simulated GPUs each.

        A healthy cluster with the same settings is reused; a broken one is removed first. Raises RuntimeError if a
        healthy cluster with other settings is running.
        """
        if os.geteuid() != 0:
            raise RuntimeError("a cluster needs root; the API server alone does not: ControlPlane.start")
        if not 1 <= nodes <= settings.MAX_NODES:
            raise ValueError(f"nodes is {nodes}; it must be from 1 to {settings.MAX_NODES}")
        with _lock():
            running = cls.running()
            if running and running._serves(nodes, gpus, audit):
                return running
            if running and running.healthy:
                raise RuntimeError("a cluster with other settings is running; remove it with `make cluster-down`")
            binaries.ensure(report=report)
            state = settings.state_dir()
            if state.exists():
                report("removing the remains of another cluster …")
            tear_down(state)
            state.mkdir(parents=True)
            with socket.create_server(("127.0.0.1", 0)) as listener:
                cluster = cls(Shape(nodes, gpus, audit, listener.getsockname()[1]))
                cluster._shape.save(state)
                try:
                    cluster._start(listener, report)
                except BaseException:
                    report(f"the cluster did not start; logs are in {state / 'processes'} until the next up or down")
                    raise
            return cluster

    @classmethod
    def running(cls) -> "Cluster | None":
        """The cluster that the state directory describes, healthy or not."""
        shape = Shape.load(settings.state_dir())
        return cls(shape) if shape else None

    @staticmethod
    def from_env() -> ExternalCluster | None:
        """The external cluster of DISTILL_KUBECONFIG; None if it is not set."""
        return ExternalCluster.from_env()

    def down(self) -> None:
        """Stop and remove everything that the cluster started."""
        with _lock():
            tear_down(self._state)

    # Nodes

    @property
    def node_names(self) -> list[str]:
        return list(self._nodes)

    def stop_kubelet(self, node: str) -> None:
        """Stop the kubelet; its pods keep running."""
        self._processes.stop(self._node(node).kubelet)

    def start_kubelet(self, node: str, seconds: float = 60) -> None:
        """Start the kubelet again, and wait until the node is ready and has its GPUs."""
        stopped = self._node(node)
        if self._processes.get(stopped.kubelet) is None:
            with self._fresh_report(node, seconds):
                stopped.start_kubelet(self._control_plane.options.directory)

    def pod_processes(self, node: str, uid: str = "*") -> list[ProcessId]:
        """All processes of the pod with this UID, or of all pods of the node, oldest first."""
        return sorted(self._node(node).pod_process_ids(uid), key=lambda process: (process.start_ticks, process.pid))

    def kill_pods(self, node: str, uid: str = "*") -> int:
        """Kill all these processes with SIGKILL; returns their number."""
        return kill_all(lambda: self._node(node).pod_process_ids(uid))

    def pod_log(self, node: str, namespace: str, pod: str, uid: str, container: str) -> str:
        """The log of a container. Works even if the node does not respond."""
        return self._node(node).pod_log(namespace, pod, uid, container)

    def partition(self, node: str) -> None:
        """Disconnect the node from the network: packets are dropped silently."""
        network.set_link(self._node(node).name, up=False)

    def heal(self, node: str) -> None:
        """Reconnect the node to the network."""
        network.set_link(self._node(node).name, up=True)

    def power_off(self, node: str) -> None:
        """Kill all processes of the node. It is disconnected first, so that peers get no TCP reset."""
        self.partition(node)
        victim = self._node(node)
        kill_all(lambda: victim.process_ids)
        self._processes.stop(*victim.programs)

    def power_on(self, node: str, seconds: float = 60) -> None:
        """Start a node that was powered off; its old containers are dead."""
        with self._fresh_report(node, seconds):
            self.heal(node)
            self._node(node).start(self._control_plane.options.directory)

    def pretend_gpus(self, *nodes: str) -> None:
        """Restore the simulated GPUs of ``nodes`` (default: all)."""
        if self._shape.gpus:
            for node in nodes or self.node_names:
                addons.pretend_gpus(self._control_plane, node, self._shape.gpus)

    @property
    def audit_log(self) -> Path | None:
        """The log of all requests; None if the cluster was started without one."""
        return self._control_plane.audit_log if self._shape.audit else None

    # Images, and the cluster's inside

    def load_image(self, reference: str, nodes: Sequence[str] | None = None) -> None:
        """Build ``distill-operator:dev``, ``-trainer`` or ``-base``, and load it into ``nodes`` (default: all)."""
        loading.load(reference, [self._node(name) for name in nodes or self.node_names])

    def nsenter_prefix(self) -> list[str]:
        """A command prefix that runs a program in the network of pods and services."""
        return network.enter(network.CONTROL_PLANE)

    @property
    def inside_kubeconfig(self) -> Path:
        """A kubeconfig for programs run with ``nsenter_prefix``, which cannot reach the host's loopback address."""
        return self._control_plane.options.directory / "inside.kubeconfig"

    # Start and health

    def _serves(self, nodes: int, gpus: int, audit: bool) -> bool:
        shape = (self._shape.nodes, self._shape.gpus, self._shape.audit or not audit)
        return shape == (nodes, gpus, True) and self.healthy

    @property
    def healthy(self) -> bool:
        """Whether it was started completely, all programs run, and the API server and all nodes are ready."""
        if not (self._state / _STARTED).exists():
            return False
        programs = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns", _FORWARDER}
        programs = programs.union(*(node.programs for node in self._nodes.values()))
        if not all(self._processes.get(program) for program in programs) or not self._control_plane.ready:
            return False
        try:
            return self._heartbeats().keys() >= set(self.node_names)
        except RuntimeError:  # the API server has ended, or is stuck
            return False

    def _start(self, listener: socket.socket, report: Callable[[str], None]) -> None:
        started = time.monotonic()

        def progress(text: str) -> None:
            report(f"{time.monotonic() - started:5.1f} s  {text}")

        host.remember(self._state)
        nodes = list(self._nodes.values())
        network.create([node.addresses for node in nodes])
        self._start_forwarder(listener)
        control_plane = self._control_plane
        control_plane.launch(control_plane.server)
        inside = control_plane.options.server
        control_plane.user_kubeconfig("inside", "distill-admin", group="system:masters", server=inside)
        progress("control plane ready")
        addons.start_dns(control_plane)
        pause = self._state / "pause.tar"
        pauseimage.pack(binaries.pause(), PAUSE_IMAGE, pause)
        for node in nodes:
            node.prepare(control_plane)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.start(control_plane.options.directory, pause), nodes))
        self._wait_ready(self.node_names, 90)
        self.kubectl("label", "node", "--all", "--overwrite", _ROLE)
        self.pretend_gpus()
        (self._state / _STARTED).touch()
        progress(f"{len(nodes)} nodes ready")

    def _start_forwarder(self, listener: socket.socket) -> None:
        command = [sys.executable, forward.__file__, str(listener.fileno())]
        target = [str(settings.CONTROL_PLANE_ADDRESS), str(settings.API_PORT)]
        namespace = str(network.path(network.CONTROL_PLANE))
        self._processes.start(_FORWARDER, [*command, namespace, *target], pass_fds=[listener.fileno()])

    @contextmanager
    def _fresh_report(self, node: str, seconds: float) -> Iterator[None]:
        """After a block that starts its kubelet, wait until ``node`` reports that it is ready, and restore its GPUs.

        Until then the API server has only the node's old status, and a deleted node is created again without GPUs.
        """
        before = self._heartbeats().get(node)
        yield
        self._wait_ready([node], seconds, stale=before)
        self.pretend_gpus(node)

    def _wait_ready(self, names: Sequence[str], seconds: float, stale: str | None = None) -> None:
        deadline = time.monotonic() + seconds
        while missing := [name for name in names if self._heartbeats().get(name, stale) == stale]:
            for name in missing:
                self._processes.require_alive(*self._node(name).programs)
            if time.monotonic() > deadline:
                logs = "\n".join(self._processes.log_tail(self._node(name).kubelet) for name in missing)
                raise TimeoutError(f"{', '.join(missing)} not ready after {seconds:.0f} s:\n{logs}")
            time.sleep(0.3)

    def _heartbeats(self) -> dict[str, str]:
        """Last heartbeat time of each ready node."""
        return {
            node["metadata"]["name"]: condition["lastHeartbeatTime"]
            for node in json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
            for condition in node["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        }

    def _node(self, name: str) -> Node:
        if name not in self._nodes:
            raise ValueError(f"there is no node {name!r}; this cluster has {', '.join(self._nodes)}")
        return self._nodes[name]


@contextmanager
def _lock() -> Iterator[None]:
    """Allow only one ``up`` or ``down`` at a time on this machine."""
    settings.cache_dir().mkdir(parents=True, exist_ok=True)
    with (settings.cache_dir() / "cluster.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
