"""Command line: ``python -m testcluster VERB``."""

import argparse
import sys
import time

from testcluster import settings, teardown
from testcluster.artifacts import binaries, debian, images
from testcluster.cluster import Cluster


def _binaries(_: argparse.Namespace) -> None:
    started = time.monotonic()
    binaries.ensure()
    binaries.ensure_packages(debian.missing_browser())
    print(f"binaries are in {settings.cache_dir()} ({time.monotonic() - started:.1f} s)")


def _up(arguments: argparse.Namespace) -> None:
    cluster = Cluster.up(arguments.nodes, arguments.gpus, audit=arguments.audit)
    print(f"export KUBECONFIG={cluster.kubeconfig}")


def _down(_: argparse.Namespace) -> None:
    state = settings.state_dir()
    if not teardown.leftovers(state):
        print("no cluster")
        return
    running = Cluster.running()
    if running:
        running.down()
    else:
        teardown.tear_down(state)
    for left in teardown.leftovers(state):
        print(f"not removed: {left}", file=sys.stderr)
    print("cluster removed")


def _image(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    image = images.build(arguments.target)
    print(f"{image} ({time.monotonic() - started:.1f} s)")


def _load(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    _running().load_image(arguments.image, arguments.node)
    print(f"{arguments.image} loaded ({time.monotonic() - started:.1f} s)")


def _gpus(_: argparse.Namespace) -> None:
    _running().pretend_gpus()


def _status(_: argparse.Namespace) -> None:
    cluster = _running()
    print(f"{'healthy' if cluster.healthy else 'not healthy'}, in {settings.state_dir()}")
    print(cluster.kubectl("get", "nodes", "-o", "wide"), end="")
    print(f"export KUBECONFIG={cluster.kubeconfig}")


def _running() -> Cluster:
    cluster = Cluster.running()
    if cluster is None:
        raise RuntimeError("no cluster is running; start one with `python -m testcluster up`")
    return cluster


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testcluster", description="A Kubernetes cluster on this one machine.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verbs.add_parser(
        "binaries", help="build or download all programs, and what tests need beside the cluster"
    ).set_defaults(run=_binaries)
    up = verbs.add_parser("up", help="start the cluster, if it is not running")
    up.add_argument("--nodes", type=int, default=2)
    up.add_argument("--gpus", type=int, default=2, help="simulated GPUs per node")
    up.add_argument("--audit", action="store_true", help="log every API request")
    up.set_defaults(run=_up)
    verbs.add_parser("down", help="remove everything that the cluster started").set_defaults(run=_down)
    image = verbs.add_parser("image", help="build an image from the Dockerfile")
    image.add_argument("target", choices=images.TARGETS)
    image.set_defaults(run=_image)
    load = verbs.add_parser("load", help="load an image into the nodes")
    load.add_argument("image", metavar="IMAGE", help="such as distill-operator:dev")
    load.add_argument("--node", action="append", metavar="N", help="load into this node only; may be repeated")
    load.set_defaults(run=_load)
    verbs.add_parser("gpus", help="restore the simulated GPUs after a node was deleted").set_defaults(run=_gpus)
    verbs.add_parser("status", help="show the state of the cluster").set_defaults(run=_status)
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
    except (RuntimeError, ValueError, TimeoutError, OSError) as error:
        print(f"testcluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
