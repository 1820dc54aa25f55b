"""One node: a containerd, a kubelet and a kube-proxy that share a network namespace."""

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from testcluster import settings
from testcluster.artifacts import binaries
from testcluster.artifacts.stored import Layer, StoredImage
from testcluster.controlplane.controlplane import ControlPlane
from testcluster.linux import cgroups, network, tree
from testcluster.linux.processes import ProcessId, ProcessTable, run
from testcluster.nodes import config
from testcluster.settings import NodeAddresses

_GC = "containerd.io/gc"
"""Labels of containerd by which it knows what is in use."""


@dataclass(frozen=True)
class Node:
    """A node: its files in ``directory``, and its programs in the process table."""

    addresses: NodeAddresses
    directory: Path
    processes: ProcessTable

    @property
    def name(self) -> str:
        return self.addresses.name

    @property
    def containerd(self) -> str:
        return f"{self.name}-containerd"

    @property
    def kubelet(self) -> str:
        return f"{self.name}-kubelet"

    @property
    def proxy(self) -> str:
        return f"{self.name}-kube-proxy"

    @property
    def programs(self) -> tuple[str, str, str]:
        return self.containerd, self.kubelet, self.proxy

    @property
    def socket(self) -> Path:
        return config.socket(self.directory)

    @property
    def enter(self) -> list[str]:
        return network.enter(network.namespace(self.name))

    def prepare(self, control_plane: ControlPlane) -> None:
        """Write all configuration files."""
        name, address = self.name, str(self.addresses.address)
        for directory in ("cni", "manifests", "plugins", "logs"):
            (self.directory / directory).mkdir(parents=True, exist_ok=True)
        self._write("containerd.toml", config.containerd(self.directory))
        self._write("cni/10-bridge.conflist", json.dumps(config.network(self.addresses, self.directory)))
        serving = control_plane.authority.issue(f"{name}-serving", name, hosts=[name, address])
        authority = control_plane.authority.pair.certificate
        self._write("kubelet.yaml", yaml.safe_dump(config.kubelet(self.addresses, self.directory, serving, authority)))
        self._write("resolv.conf", "")  # do not use the host's name servers and search domains
        server = f"https://{settings.CONTROL_PLANE_ADDRESS}:{settings.API_PORT}"
        control_plane.user_kubeconfig(f"{name}-kubelet", f"system:node:{name}", group="system:nodes", server=server)
        control_plane.user_kubeconfig(f"{name}-proxy", "system:kube-proxy", server=server)
        cgroups.create(name)

    def start(self, kubeconfigs: Path, archive: Path | None = None) -> None:
        """Start the programs. ``archive``: the pause image, if the runtime does not have it yet."""
        self._start_containerd()
        if archive:
            self.import_image(archive)
        self.start_kubelet(kubeconfigs)
        command = [
            str(binaries.path("kube-proxy")),
            f"--kubeconfig={kubeconfigs / f'{self.name}-proxy.kubeconfig'}",
            f"--hostname-override={self.name}",
            f"--bind-address={self.addresses.address}",
            f"--cluster-cidr={settings.POD_NETWORK}",
            "--proxy-mode=iptables",
            "--conntrack-max-per-core=0",  # do not change it: it applies to the machine, not to the namespace
            "--oom-score-adj=0",
        ]
        self.processes.start(self.proxy, command, prefix=self.enter)

    def _start_containerd(self) -> None:
        command = ["/usr/bin/containerd", "--config", str(self.directory / "containerd.toml")]
        self.processes.start(self.containerd, command, prefix=self.enter)
        deadline = time.monotonic() + 30
        while not _listens(self.socket):  # a kubelet exits if containerd does not listen
            self.processes.require_alive(self.containerd)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.containerd} does not listen:\n{self.processes.log_tail(self.containerd)}")
            time.sleep(0.05)

    def start_kubelet(self, kubeconfigs: Path) -> None:
        command = [
            str(binaries.path("kubelet")),
            f"--config={self.directory / 'kubelet.yaml'}",
            f"--kubeconfig={kubeconfigs / f'{self.name}-kubelet.kubeconfig'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.addresses.address}",
            f"--root-dir={self.directory / 'kubelet'}",
            f"--cert-dir={self.directory / 'kubelet-pki'}",
        ]
        self.processes.start(self.kubelet, command, prefix=self.enter)

    def import_image(self, archive: Path) -> None:
        """Import the images of an OCI or Docker archive into the runtime."""
        self._ctr("images", "import", str(archive))
        # Remove the packed layers: only the unpacked ones are used.
        blobs = self.directory / "containerd" / "io.containerd.content.v1.content" / "blobs" / "sha256"
        layers = [f"sha256:{blob.name}" for blob in tree.entries(blobs) if _is_layer(blob)]
        if layers:
            self._ctr("content", "rm", *layers)

    def add_image(self, image: StoredImage, description: Path) -> None:
        """Add an image to the runtime. Its layers are hard links to the files of buildah's store, where they are on
        the same file system; neither changes such a file."""
        committed = self._ctr("snapshots", "ls").split()
        parents: list[str] = []
        for layer in image.layers:
            if layer.chain_id not in committed:
                self._add_layer(layer, parents)
            parents = [layer.chain_id]
        self._ctr("images", "import", "--no-unpack", str(description))
        # From here on the runtime keeps the layers for the image; until now for ctr's label.
        self._ctr("content", "label", image.config_digest, f"{_GC}.ref.snapshot.overlayfs={parents[0]}")
        for layer in image.layers:
            self._ctr("snapshots", "label", layer.chain_id, f"{_GC}.root=")

    def _add_layer(self, layer: Layer, parents: list[str]) -> None:
        active = f"{time.time_ns()}-{layer.chain_id}"
        (mount,) = json.loads(self._ctr("snapshots", "prepare", "--mounts", active, *parents))
        options = dict(option.split("=", 1) for option in mount["Options"] if "=" in option)
        place = Path(options.get("upperdir", mount["Source"]))
        same = place.stat().st_dev == layer.files.stat().st_dev
        run("cp", "-a", "--link" if same else "--reflink=auto", f"{layer.files}/.", place, timeout=900)
        self._ctr("snapshots", "commit", layer.chain_id, active)

    def loaded(self, reference: str) -> str | None:
        """ID of the imported build of an image; None if it was not imported."""
        record = self._image_record(reference)
        return record.read_text() if record.exists() else None

    def record_loaded(self, reference: str, identity: str) -> None:
        record = self._image_record(reference)
        record.parent.mkdir(exist_ok=True)
        record.write_text(identity)

    def _image_record(self, reference: str) -> Path:
        return self.directory / "images" / reference.replace("/", "_")

    def _ctr(self, *arguments: str) -> str:
        """Run containerd's command line client in Kubernetes' namespace."""
        return run("ctr", "--address", self.socket, "--namespace", "k8s.io", *arguments, timeout=900)

    @property
    def process_ids(self) -> set[ProcessId]:
        """The node's programs and all processes of its pods."""
        own = network.members(network.namespace(self.name))
        groups = (hierarchy / cgroups.name(self.name) for hierarchy in cgroups.hierarchies())
        return own.union(*(cgroups.members(group) for group in groups))

    def pod_process_ids(self, uid: str = "*") -> set[ProcessId]:
        """All processes of the pod with this UID, or of all pods."""
        return set().union(*(cgroups.members(group) for group in cgroups.of_pods(self.name, uid)))

    def pod_log(self, namespace: str, pod: str, uid: str, container: str) -> str:
        """The log of a container, from the runtime's file. Works even if the node does not respond."""
        file = self.directory / "logs" / f"{namespace}_{pod}_{uid}" / container / "0.log"
        return file.read_text(errors="replace")

    def _write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)


def _is_layer(blob: Path) -> bool:
    """Whether a blob is a layer (a tar archive) and not a manifest or configuration."""
    with tree.vanishing(), blob.open("rb") as file:
        return file.read(1) != b"{"
    return False


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
