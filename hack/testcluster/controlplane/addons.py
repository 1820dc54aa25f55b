"""Add-ons of a cluster: CoreDNS with its service, and simulated GPUs."""

import json
from pathlib import Path

from testcluster import settings
from testcluster.artifacts import binaries
from testcluster.controlplane.controlplane import ControlPlane

GPU = "nvidia.com/gpu"
_DNS_USER = "system:coredns"


def start_dns(control_plane: ControlPlane) -> None:
    """Start CoreDNS on the control plane's address, which all nodes and pods can reach."""
    kubeconfig = control_plane.user_kubeconfig("coredns", _DNS_USER, server=control_plane.options.server)
    corefile = control_plane.options.directory / "Corefile"
    corefile.write_text(_corefile(kubeconfig))
    command = [str(binaries.path("coredns")), "-conf", str(corefile)]
    control_plane.processes.start("coredns", command, prefix=control_plane.options.prefix)
    control_plane.apply(*_dns_role(), *_dns_service())


def pretend_gpus(control_plane: ControlPlane, node: str, count: int) -> None:
    """Add ``count`` simulated GPUs to ``node``; the scheduler treats them like real ones."""
    control_plane.kubectl(*gpu_patch(node, count))


def gpu_patch(node: str, count: int) -> tuple[str, ...]:
    """The kubectl arguments that add ``count`` GPUs to the status of ``node``."""
    resource = GPU.replace("/", "~1")
    patch = [
        {"op": "add", "path": f"/status/{kind}/{resource}", "value": str(count)} for kind in ("capacity", "allocatable")
    ]
    return ("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(patch))


def _corefile(kubeconfig: Path) -> str:
    # A short TTL and no cache, because pods of a new attempt reuse the names of the previous one's.
    return f"""\
.:53 {{
    bind {settings.CONTROL_PLANE_ADDRESS}
    errors
    kubernetes {settings.CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 1
    }}
}}
"""


def _dns_role() -> list[dict[str, object]]:
    role: dict[str, object] = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": _DNS_USER},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    }
    binding: dict[str, object] = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": _DNS_USER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": _DNS_USER},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": _DNS_USER}],
    }
    return [role, binding]


def _dns_service() -> list[dict[str, object]]:
    metadata = {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    service: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"clusterIP": str(settings.DNS_SERVICE_ADDRESS), "ports": ports},
    }
    # CoreDNS does not run in a pod, so the service has no selector and needs an EndpointSlice.
    endpoints: dict[str, object] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata | {"labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [str(settings.CONTROL_PLANE_ADDRESS)], "conditions": {"ready": True}}],
    }
    return [service, endpoints]
