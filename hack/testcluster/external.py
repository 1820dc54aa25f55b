"""An external cluster, such as kind, with the interface of Cluster."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from testcluster.artifacts import images
from testcluster.controlplane.access import KubernetesAccess
from testcluster.controlplane.addons import GPU, gpu_patch

_VARIABLE = "DISTILL_KUBECONFIG"


class ExternalCluster(KubernetesAccess):
    """Methods that need access to the nodes raise NotImplementedError."""

    @classmethod
    def from_env(cls) -> "ExternalCluster | None":
        value = os.environ.get(_VARIABLE)
        if not value:
            return None
        kubeconfig = Path(value).expanduser()
        if not kubeconfig.is_file():
            raise FileNotFoundError(f"{_VARIABLE} is {value}, which is not a file")
        return cls(kubeconfig)

    def down(self) -> None:
        """Do nothing: an external cluster is not removed."""

    def load_image(self, reference: str, nodes: Sequence[str] | None = None) -> None:
        """Build one of the project's images and load it into a kind cluster. Other clusters must pull it."""
        context = self.kubectl("config", "current-context").strip()
        if not context.startswith("kind-") or shutil.which("kind") is None:
            raise NotImplementedError(f"cannot load {reference} into {context}; push it to a registry")
        for target in images.TARGETS:
            if reference == images.reference(target):
                images.build(target)
        only = ["--nodes", ",".join(nodes)] if nodes else []
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "image.tar"
            images.export(reference, archive)
            subprocess.run(["kind", "load", "image-archive", archive, "--name", context[5:], *only], check=True)

    def pretend_gpus(self, count: int) -> None:
        """Add ``count`` simulated GPUs to nodes without GPUs; the scheduler treats them like real ones."""
        for node in json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]:
            if GPU not in node["status"]["allocatable"]:
                self.kubectl(*gpu_patch(node["metadata"]["name"], count))

    # Methods of Cluster that need access to the nodes.

    def stop_kubelet(self, *_: object) -> NoReturn:
        self._unsupported("stop a kubelet")

    def start_kubelet(self, *_: object) -> NoReturn:
        self._unsupported("start a kubelet")

    def pod_processes(self, *_: object) -> NoReturn:
        self._unsupported("see the processes of a pod")

    def kill_pods(self, *_: object) -> NoReturn:
        self._unsupported("kill the processes of a pod")

    def pod_log(self, *_: object) -> NoReturn:
        self._unsupported("read a node's files")

    def partition(self, *_: object) -> NoReturn:
        self._unsupported("disconnect a node")

    def heal(self, *_: object) -> NoReturn:
        self._unsupported("reconnect a node")

    def power_off(self, *_: object) -> NoReturn:
        self._unsupported("power off a node")

    def power_on(self, *_: object) -> NoReturn:
        self._unsupported("power on a node")

    def nsenter_prefix(self) -> NoReturn:
        self._unsupported("enter the network")

    @property
    def inside_kubeconfig(self) -> NoReturn:
        self._unsupported("enter the network")

    def _unsupported(self, what: str) -> NoReturn:
        raise NotImplementedError(
            f"cannot {what} of the cluster of {self.kubeconfig}; unset {_VARIABLE} to use the one-machine cluster"
        )
