"""The one-machine cluster's NetworkPolicies: which rules they become, and what the kernel then lets through."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from distill_api.constants import METRICS_PORT, OPERATOR_HEALTH_PORT, OPERATOR_METRICS_PORT, RENDEZVOUS_PORT
from distill_operator.builders import build_network_policy
from distill_operator.builders.network_policy import DNS_PORTS
from manifestlint import manifests
from testcluster.nodes import enforcing
from testcluster.nodes.netpolicy import Object, Pod, World, rules, selects
from tests.support.machine.leaving_out import leave_out
from tests.support.operator.samples import job

EXPRESSIONS = [
    ({}, True),
    ({"matchLabels": {"app": "a"}}, True),
    ({"matchLabels": {"app": "b"}}, False),
    ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}, True),
    ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}, False),
    ({"matchExpressions": [{"key": "other", "operator": "NotIn", "values": ["a"]}]}, True),
    ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
    ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    ({"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}, False),
]


@pytest.mark.parametrize(("selector", "selected"), EXPRESSIONS, ids=str)
def test_a_label_selector_selects_as_in_kubernetes(selector: Object, selected: bool) -> None:
    assert selects(selector, {"app": "a"}) is selected


def pod(address: str, app: str, namespace: str = "team", node: str = "node0", **ports: int) -> Pod:
    return Pod(namespace, node, {"app": app}, address, {(name, "TCP"): number for name, number in ports.items()})


SERVER, CLIENT, FAR = pod("10.0.0.1", "a", web=80), pod("10.0.0.2", "b"), pod("10.0.0.3", "b", "far", "node1", web=81)
WORLD = World((SERVER, CLIENT, FAR), {"team": {"of": "us"}, "far": {"of": "them"}})


def policy(selector: Object | None = None, **spec: Any) -> Object:
    return {"metadata": {"namespace": "team", "name": "p"}, "spec": {"podSelector": selector or {}, **spec}}


def allowed(direction: str, rule: Object, address: str = SERVER.address) -> list[str]:
    """The matches that may pass a pod's chain with this one rule."""
    made = rules([policy(policyTypes=[direction], **{direction.lower(): [rule]})], WORLD, "node0")
    chain = f"-A POLICY-{direction[0]}-{address} "
    lines = [line.removeprefix(chain) for line in made.splitlines() if line.startswith(chain)]
    assert lines[-1] == "-j REJECT --reject-with icmp-admin-prohibited"
    return [line.removesuffix("-j RETURN").strip() for line in lines[:-1]]


PEERS = [
    ({}, [""]),
    ({"from": [{"podSelector": {"matchLabels": {"app": "b"}}}]}, ["-s 10.0.0.2"]),
    ({"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "b"}}}]},
     ["-s 10.0.0.2", "-s 10.0.0.3"]),
    ({"from": [{"namespaceSelector": {"matchLabels": {"of": "them"}}}]}, ["-s 10.0.0.3"]),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/30", "except": ["10.0.0.0/31"]}}]}, ["-s 10.0.0.2/31"]),
    ({"ports": [{"port": 9400, "endPort": 9403}, {"port": 53, "protocol": "UDP"}]},
     ["-p tcp --dport 9400:9403", "-p udp --dport 53"]),
    ({"ports": [{"port": "web"}, {"port": "none"}]}, ["-p tcp --dport 80"]),
    ({"from": [{"podSelector": {"matchLabels": {"app": "c"}}}]}, []),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "matches"), PEERS, ids=str)
def test_ingress_is_from_peers_to_ports_of_the_pod(rule: Object, matches: list[str]) -> None:
    assert allowed("Ingress", rule) == matches


def test_egress_is_to_peers_and_to_their_ports() -> None:
    rule = {"to": [{"namespaceSelector": {}}], "ports": [{"port": "web"}]}
    assert allowed("Egress", rule) == ["-d 10.0.0.1 -p tcp --dport 80", "-d 10.0.0.3 -p tcp --dport 81"]


@pytest.mark.parametrize(
    ("spec", "chains"),
    [
        ({}, {"POLICY-I-10.0.0.1", "POLICY-I-10.0.0.2"}),
        ({"egress": [{}]}, {f"POLICY-{d}-10.0.0.{n}" for d in "IE" for n in (1, 2)}),
        ({"policyTypes": ["Egress"]}, {"POLICY-E-10.0.0.1", "POLICY-E-10.0.0.2"}),
        ({"selector": {"matchLabels": {"app": "b"}}}, {"POLICY-I-10.0.0.2"}),
        ({"selector": {"matchLabels": {"app": "c"}}}, set()),
    ],
)
def test_only_pods_that_a_policy_selects_are_limited(spec: dict[str, Any], chains: set[str]) -> None:
    made = rules([policy(**spec)], WORLD, "node0")
    assert {line.split()[0][1:] for line in made.splitlines() if line.startswith(":POLICY-")} == chains


@pytest.mark.parametrize(
    "change",
    [{"status": {}}, {"status": {"podIP": "10.0.0.1", "phase": "Succeeded"}}, {"spec": {"hostNetwork": True}}],
    ids=["no address", "ended", "the node's network"],
)
def test_a_pod_without_an_address_of_its_own_is_left_out(change: Object) -> None:
    obj = {"kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "node0", "containers": []}}
    running = {**obj, "status": {"podIP": "10.0.0.1", "phase": "Running"}}
    assert Pod.of(running) is not None
    assert Pod.of({**running, **change}) is None


# With a kernel: a node that routes between pods, each a network namespace.

NAMES = ("rank0", "rank1", "operator", "prometheus", "stranger")
PORTS = (METRICS_PORT, RENDEZVOUS_PORT, OPERATOR_METRICS_PORT, OPERATOR_HEALTH_PORT, DNS_PORTS[0])
LISTEN = (
    "import socket, sys; s = [socket.create_server(('', int(p))) for p in sys.argv[1:]]; print(1, flush=True); input()"
)
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Machine:
    """A node and its pods, by name."""

    def __init__(self) -> None:
        self.node = f"netpolicy-{os.getpid()}"
        self.addresses = {name: f"10.99.{number}.2" for number, name in enumerate(NAMES)}

    def name(self, pod: str) -> str:
        return f"{self.node}-{pod}"

    def make(self) -> None:
        ip("netns", "add", self.node)
        subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.node}", "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True
        )
        for number, pod in enumerate(NAMES):
            inside = self.name(pod)
            ip("netns", "add", inside)
            ip("-n", self.node, "link", "add", pod, "type", "veth", "peer", "name", "eth0", "netns", inside)
            for namespace, device, address in ((self.node, pod, 1), (inside, "eth0", 2)):
                ip("-n", namespace, "address", "add", f"10.99.{number}.{address}/24", "dev", device)
                ip("-n", namespace, "link", "set", device, "up")
            ip("-n", inside, "route", "add", "default", "via", f"10.99.{number}.1")

    def remove(self) -> None:
        for name in (*(self.name(pod) for pod in NAMES), self.node):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def inside(self, pod: str, program: str, *arguments: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.name(pod)}", "--", sys.executable, "-c", program, *arguments]

    def reaches(self, source: str, target: str, port: int) -> bool:
        command = self.inside(source, CONNECT, self.addresses[target], str(port))
        return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def machine() -> Iterator[Machine]:
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("iptables")):
        leave_out("network namespaces need root, iproute2 and iptables; run the tests as root to include this one")
    machine = Machine()
    servers = []
    try:
        machine.make()
        for pod_ in NAMES:
            command = machine.inside(pod_, LISTEN, *map(str, PORTS))
            server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            servers.append(server)
            assert server.stdout is not None
            assert server.stdout.readline() == b"1\n"
        yield machine
    finally:
        for server in servers:
            server.kill()
            server.wait()
        machine.remove()


def pods_of(machine: Machine, operator: Object) -> World:
    """A gang in the namespace team, a stranger beside it, the operator in its own, and a Prometheus elsewhere."""
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    named = {(port["name"], "TCP"): port["containerPort"] for port in container["ports"]}
    gang = {"distilljob.dev/job": "tiny"}
    about: dict[str, tuple[str, Any, Any]] = {
        "rank0": ("team", gang, {}),
        "rank1": ("team", gang, {}),
        "stranger": ("team", {"app": "other"}, {}),
        "operator": ("admins", operator["spec"]["template"]["metadata"]["labels"], named),
        "prometheus": ("monitoring", {"app.kubernetes.io/name": "prometheus"}, {}),
    }
    pods = [Pod(ns, "node0", labels, machine.addresses[name], ports) for name, (ns, labels, ports) in about.items()]
    return World(tuple(pods), {ns: {"kubernetes.io/metadata.name": ns} for ns in ("team", "admins", "monitoring")})


CONNECTIONS = {
    ("rank1", "rank0", RENDEZVOUS_PORT): True,
    ("operator", "rank0", METRICS_PORT): True,
    ("prometheus", "rank0", METRICS_PORT): True,
    ("stranger", "rank0", METRICS_PORT): False,
    ("stranger", "rank0", RENDEZVOUS_PORT): False,
    ("operator", "rank0", RENDEZVOUS_PORT): False,
    ("prometheus", "rank0", RENDEZVOUS_PORT): False,
    ("rank0", "stranger", METRICS_PORT): False,
    ("rank0", "stranger", DNS_PORTS[0]): True,
    ("prometheus", "operator", OPERATOR_METRICS_PORT): True,
    ("prometheus", "operator", OPERATOR_HEALTH_PORT): False,
    ("stranger", "operator", OPERATOR_METRICS_PORT): False,
}
"""Source, target and port; whether the policies that are on by default allow it."""


def test_the_kernel_refuses_what_the_default_policies_do_not_allow(machine: Machine) -> None:
    chart = manifests.rendered("admins", {})
    policies = [obj for obj in chart if obj["kind"] == "NetworkPolicy"]
    policies.append(build_network_policy(job(), "team", manifests.told(chart)))
    (operator,) = [obj for obj in chart if obj["kind"] == "Deployment"]
    made = rules(policies, pods_of(machine, operator), "node0")
    assert all(machine.reaches(*connection) for connection in CONNECTIONS)
    enforcing.apply(machine.node, made)
    enforcing.apply(machine.node, made)  # again, as after a change
    assert {connection: machine.reaches(*connection) for connection in CONNECTIONS} == CONNECTIONS
    enforcing.remove(machine.node)
    assert all(machine.reaches(*connection) for connection in CONNECTIONS)
