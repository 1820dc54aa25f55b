"""Runs kubectl and helm against a Kubernetes API."""

import base64
from collections.abc import Sequence
from pathlib import Path

import yaml

from testcluster.artifacts import binaries
from testcluster.controlplane.pki import KeyPair
from testcluster.linux.processes import run


class KubernetesAccess:
    """Access to the cluster of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(self, *args: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run kubectl and return its output. Raises RuntimeError if it fails or exceeds ``timeout`` seconds."""
        return self._run(binaries.kubectl(), args, stdin, timeout)

    def transcript(self, namespace: str, commands: Sequence[Sequence[str]]) -> str:
        """Run kubectl commands in a namespace and return their outputs, or their errors."""
        parts = []
        for arguments in commands:
            try:
                output = self.kubectl("-n", namespace, *arguments)
            except RuntimeError as error:
                output = str(error)
            parts.append(f"$ kubectl {' '.join(arguments)}\n{output}")
        return "\n".join(parts)

    def helm(self, *args: str, stdin: str | None = None, timeout: float = 300) -> str:
        """Run helm and return its output. Raises RuntimeError if it fails or exceeds ``timeout`` seconds."""
        return self._run(binaries.helm(), args, stdin, timeout)

    def apply(self, *objects: dict[str, object]) -> None:
        """Server-side apply of manifests given as dictionaries."""
        self.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(objects))

    @property
    def node_names(self) -> list[str]:
        return self.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()

    def _run(self, program: Path, args: tuple[str, ...], stdin: str | None, timeout: float) -> str:
        environment = {"KUBECONFIG": str(self.kubeconfig)}
        return run(program, *args, input=stdin, timeout=timeout, environment=environment)


def write_kubeconfig(path: Path, server: str, authority: Path, user: KeyPair) -> Path:
    """Write a kubeconfig with embedded credentials, readable only by its owner."""

    def embed(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": embed(authority)}
    credentials = {"client-certificate-data": embed(user.certificate), "client-key-data": embed(user.key)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "distill", "cluster": cluster}],
        "users": [{"name": "distill", "user": credentials}],
        "contexts": [{"name": "distill", "context": {"cluster": "distill", "user": "distill"}}],
        "current-context": "distill",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document))
    return path
