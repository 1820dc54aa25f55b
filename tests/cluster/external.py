"""A cluster that someone else runs, such as kind, behind the interface of our own."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .access import KubernetesAccess

_VARIABLES = ("DISTILL_KUBECONFIG", "KUBECONFIG_TEST")


class ExternalCluster(KubernetesAccess):
    """What needs no access to the nodes works; the rest raises NotImplementedError and says so."""

    @classmethod
    def from_env(cls) -> "ExternalCluster | None":
        for variable in _VARIABLES:
            if value := os.environ.get(variable):
                kubeconfig = Path(value).expanduser()
                if not kubeconfig.is_file():
                    raise FileNotFoundError(f"{variable} is {value}, which is not a file")
                return cls(kubeconfig)
        return None

    def down(self) -> None:
        """Nothing: who started this cluster ends it."""

    def load_image(self, reference: str, nodes: Sequence[str] | None = None) -> None:
        """Load an image into a kind cluster; elsewhere it must be pulled from a registry."""
        context = self.kubectl("config", "current-context").strip()
        if not context.startswith("kind-") or shutil.which("kind") is None:
            raise NotImplementedError(f"{reference}: push it to a registry that {context} pulls from")
        only = ["--nodes", ",".join(nodes)] if nodes else []
        subprocess.run(["kind", "load", "docker-image", reference, "--name", context[5:], *only], check=True)

    def pretend_gpus(self, *_: str) -> None:
        """Nothing: a cluster of someone else's has the GPUs that it has."""

    # The names of what needs the machines themselves, so that a test that asks for it learns why it cannot run here.

    def stop_kubelet(self, *_: object) -> NoReturn:
        self._unsupported("stop a kubelet")

    def start_kubelet(self, *_: object) -> NoReturn:
        self._unsupported("start a kubelet")

    def partition(self, *_: object) -> NoReturn:
        self._unsupported("cut off a node")

    def heal(self, *_: object) -> NoReturn:
        self._unsupported("plug in a node")

    def power_off(self, *_: object) -> NoReturn:
        self._unsupported("switch off a node")

    def power_on(self, *_: object) -> NoReturn:
        self._unsupported("switch on a node")

    def node_pids(self, *_: object) -> NoReturn:
        self._unsupported("see the processes of a node")

    def nsenter_prefix(self) -> NoReturn:
        self._unsupported("enter the network")

    @property
    def inside_kubeconfig(self) -> NoReturn:
        self._unsupported("enter the network")

    def _unsupported(self, what: str) -> NoReturn:
        raise NotImplementedError(
            f"cannot {what} of {self.kubeconfig}; unset {' and '.join(_VARIABLES)} to use our own"
        )
