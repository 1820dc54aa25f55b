"""Configuration files of a node: containerd, pod network, kubelet."""

from pathlib import Path

from testcluster import settings
from testcluster.controlplane.pki import KeyPair
from testcluster.linux import cgroups
from testcluster.settings import NodeAddresses

PAUSE_IMAGE = "localhost/distill-pause:1"
NETWORK_NAME = "distill-test"
RUNTIME = "io.containerd.runtime.v2.task/k8s.io"  # under containerd's state directory, a directory per container
_PLUGINS = Path("/usr/lib/cni")


def socket(directory: Path) -> Path:
    """Socket of the containerd of the node in ``directory``."""
    return directory / "containerd.sock"


def containerd(directory: Path) -> str:
    # Without restrict_oom_score_adj, runc fails if root lacks CAP_SYS_RESOURCE ("can't get final child's PID").
    # Namespaces below the state directory can be distinguished from those of another containerd.
    unused = ", ".join(f'"io.containerd.snapshotter.v1.{name}"' for name in ("aufs", "btrfs", "devmapper", "zfs"))
    return f"""\
version = 2
root = "{directory}/containerd"
state = "{directory}/run"
disabled_plugins = [{unused}]

[grpc]
address = "{socket(directory)}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{directory}/runc"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{_PLUGINS}"
conf_dir = "{directory}/cni"
"""


def network(addresses: NodeAddresses, directory: Path) -> dict[str, object]:
    ipam = {
        "type": "host-local",
        "dataDir": str(directory / "addresses"),
        "ranges": [[{"subnet": str(addresses.pods)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": NETWORK_NAME, "plugins": [bridge, ports]}


def kubelet(addresses: NodeAddresses, directory: Path, serving: KeyPair, authority: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(addresses.address),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{socket(directory)}",
        "clusterDNS": [str(settings.CONTROL_PLANE_ADDRESS)],
        "clusterDomain": settings.CLUSTER_DOMAIN,
        "resolvConf": str(directory / "resolv.conf"),
        "podLogsDir": str(directory / "logs"),
        "staticPodPath": str(directory / "manifests"),
        "volumePluginDir": str(directory / "plugins"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.name(addresses.name)}",
        "enforceNodeAllocatable": ["pods"],
        "localStorageCapacityIsolation": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "maxPods": 50,
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 8,  # renewed after a quarter of this time
        "containerLogMaxSize": "10Mi",
        # The disk is shared with the whole machine, so evictions for lack of disk space make no sense.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "shutdownGracePeriod": "0s",
    }
