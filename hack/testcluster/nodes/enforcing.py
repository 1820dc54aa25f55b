"""Enforces NetworkPolicies on the one-machine cluster, whose pod network does not do it by itself."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from testcluster.controlplane.access import KubernetesAccess
from testcluster.linux import network
from testcluster.nodes.netpolicy import CHAIN, Object, Pod, World, rules

_SECONDS = 0.5


@contextmanager
def enforced(cluster: KubernetesAccess) -> Iterator[None]:
    """Enforce the cluster's NetworkPolicies while the block runs.

    A new pod or policy counts after about a second; connections that were there before go on. Raises RuntimeError at
    the end if the rules could not be applied at some time.
    """
    stop = threading.Event()
    failures: list[str] = []
    applied: dict[str, str] = {}

    def follow() -> None:
        while not stop.wait(_SECONDS):
            try:
                _refresh(cluster, applied)
            except (RuntimeError, subprocess.SubprocessError) as error:
                failures.append(str(error))

    _refresh(cluster, applied)
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for node in applied:
            remove(network.namespace(node))
    if failures:
        raise RuntimeError(f"NetworkPolicies were not enforced all the time: {failures[0]}")


def _refresh(cluster: KubernetesAccess, applied: dict[str, str]) -> None:
    """Apply the rules of nodes where they have changed."""
    kinds = "networkpolicies,pods,namespaces"
    objects = json.loads(cluster.kubectl("get", kinds, "--all-namespaces", "-o", "json"))["items"]
    policies, world = read(objects)
    for node in cluster.node_names:
        wanted = rules(policies, world, node)
        if applied.get(node) != wanted:
            apply(network.namespace(node), wanted)
            applied[node] = wanted


def read(objects: list[Object]) -> tuple[list[Object], World]:
    """The policies among API objects, and the pods and namespaces that they refer to."""
    pods = [Pod.of(obj) for obj in objects if obj["kind"] == "Pod"]
    namespaces = {o["metadata"]["name"]: o["metadata"].get("labels") or {} for o in objects if o["kind"] == "Namespace"}
    world = World(tuple(pod for pod in pods if pod is not None), namespaces)
    return [obj for obj in objects if obj["kind"] == "NetworkPolicy"], world


def apply(namespace: str, text: str) -> None:
    """Replace the rules in a network namespace. Raises RuntimeError."""
    _run(namespace, "iptables-restore", "--noflush", stdin=text)
    if not _run(namespace, "iptables", "-C", "FORWARD", "-j", CHAIN, may_fail=True):
        _run(namespace, "iptables", "-I", "FORWARD", "-j", CHAIN)


def remove(namespace: str) -> None:
    """Let everything through again."""
    _run(namespace, "iptables", "-D", "FORWARD", "-j", CHAIN, may_fail=True)


def _run(namespace: str, *command: str, stdin: str = "", may_fail: bool = False) -> bool:
    whole = [*network.enter(namespace), *command]
    done = subprocess.run(whole, input=stdin, capture_output=True, text=True, timeout=30)
    if done.returncode != 0 and not may_fail:
        raise RuntimeError(f"{' '.join(command)} in {namespace}: {done.stderr.strip()}\n{stdin}")
    return done.returncode == 0
