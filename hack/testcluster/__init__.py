"""A real multi-node Kubernetes on one Linux machine, for tests and the demo.

``ControlPlane`` is the API server, etcd and the controllers, and needs no root; ``Cluster`` adds nodes that run
containers. Both are built from packages; see ``python -m testcluster --help``.
"""

from testcluster.cluster import Cluster
from testcluster.controlplane.controlplane import ControlPlane
from testcluster.external import ExternalCluster

__all__ = ["Cluster", "ControlPlane", "ExternalCluster"]
