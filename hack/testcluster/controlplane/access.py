"""Talk to a Kubernetes API through kubectl and helm, whoever runs it."""

import base64
from collections.abc import Sequence
from pathlib import Path

import yaml

from testcluster.artifacts import binaries
from testcluster.controlplane.pki import KeyPair
from testcluster.linux.processes import run


class KubernetesAccess:
    """A cluster that a kubeconfig leads to."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(self, *args: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Standard output of kubectl; raises RuntimeError when it fails or takes longer than ``timeout`` seconds."""
        return self._run(binaries.kubectl(), args, stdin, timeout)

    def transcript(self, namespace: str, commands: Sequence[Sequence[str]]) -> str:
        """What kubectl commands print in a namespace, one after the other; of those that fail, why."""
        parts = []
        for arguments in commands:
            try:
                answer = self.kubectl("-n", namespace, *arguments)
            except RuntimeError as error:
                answer = str(error)
            parts.append(f"$ kubectl {' '.join(arguments)}\n{answer}")
        return "\n".join(parts)

    def helm(self, *args: str, stdin: str | None = None, timeout: float = 300) -> str:
        """Standard output of helm; raises RuntimeError when it fails or takes longer than ``timeout`` seconds."""
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
    """A kubeconfig with everything embedded, readable by its owner only."""

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
