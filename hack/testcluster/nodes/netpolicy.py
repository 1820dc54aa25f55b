"""NetworkPolicies as iptables rules of a node. Pure: `enforcing.py` reads the objects and applies the rules."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

Object = dict[str, Any]
CHAIN = "POLICY"
"""FORWARD jumps to it, and what it returns from is allowed. The node's own traffic, such as probes, is not in it."""
REFUSE = "REJECT --reject-with icmp-admin-prohibited"


@dataclass(frozen=True)
class Pod:
    """A pod with an address of its own."""

    namespace: str
    node: str
    labels: Mapping[str, str]
    address: str
    ports: Mapping[tuple[str, str], int]
    """Number by name and protocol."""

    @classmethod
    def of(cls, obj: Object) -> "Pod | None":
        """The pod; None if no policy can apply to it: it has no address, ended, or uses the node's network."""
        spec, status = obj["spec"], obj.get("status") or {}
        if not status.get("podIP") or spec.get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
            return None
        ports = {
            (port["name"], port.get("protocol", "TCP")): port["containerPort"]
            for container in spec["containers"]
            for port in container.get("ports", ())
            if "name" in port
        }
        metadata = obj["metadata"]
        return cls(metadata["namespace"], spec["nodeName"], metadata.get("labels") or {}, status["podIP"], ports)


@dataclass(frozen=True)
class World:
    """What policies refer to."""

    pods: tuple[Pod, ...]
    namespaces: Mapping[str, Mapping[str, str]]
    """Labels by name."""

    def addresses(self, peer: Object, namespace: str) -> Iterator[tuple[str, Pod | None]]:
        """Addresses of a rule's peer, each with its pod; those of an ipBlock have none."""
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            for network in _without(IPv4Network(block["cidr"]), map(IPv4Network, block.get("except", ()))):
                yield str(network), None
            return
        for pod in self.pods:
            if "namespaceSelector" in peer:
                near = selects(peer["namespaceSelector"], self.namespaces.get(pod.namespace, {}))
            else:
                near = pod.namespace == namespace
            if near and selects(peer.get("podSelector") or {}, pod.labels):
                yield pod.address, pod


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels; an empty one selects everything."""
    if any(labels.get(name) != value for name, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(wish, labels) for wish in selector.get("matchExpressions") or ())


def _meets(wish: Object, labels: Mapping[str, str]) -> bool:
    value = labels.get(wish["key"])
    match wish["operator"]:
        case "In":
            return value in wish["values"]
        case "NotIn":
            return value not in wish["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(f"unknown operator {wish['operator']!r} in a label selector")


def rules(policies: Iterable[Object], world: World, node: str) -> str:
    """The input of `iptables-restore --noflush` for the pods of a node."""
    policies = list(policies)
    chains, lines = [CHAIN], [f"-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"]
    for pod in world.pods:
        if pod.node != node:
            continue
        for direction, option in (("Ingress", "-d"), ("Egress", "-s")):
            applying = [p for p in policies if _applies(p, pod, direction)]
            if not applying:
                continue
            chain = f"{CHAIN}-{direction[0]}-{pod.address}"
            chains.append(chain)
            lines.append(f"-A {CHAIN} {option} {pod.address} -j {chain}")
            allowed = [match for policy in applying for match in _allowed(policy, direction, pod, world)]
            lines += [f"-A {chain} {match} -j RETURN".replace("  ", " ") for match in dict.fromkeys(allowed)]
            lines.append(f"-A {chain} -j {REFUSE}")
    return "\n".join(["*filter", *(f":{chain} - [0:0]" for chain in chains), *lines, "COMMIT", ""])


def _applies(policy: Object, pod: Pod, direction: str) -> bool:
    spec = policy["spec"]
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    same = policy["metadata"]["namespace"] == pod.namespace
    return same and direction in types and selects(spec.get("podSelector") or {}, pod.labels)


def _allowed(policy: Object, direction: str, pod: Pod, world: World) -> Iterator[str]:
    """The matches of packets that a policy allows."""
    peers, option = ("from", "-s") if direction == "Ingress" else ("to", "-d")
    for rule in policy["spec"].get(direction.lower()) or ():
        ends: list[tuple[str, Pod | None]] = [("", None)]
        if rule.get(peers):
            namespace = policy["metadata"]["namespace"]
            ends = [(f"{option} {a}", other) for peer in rule[peers] for a, other in world.addresses(peer, namespace)]
        for end, other in ends:
            target = pod if direction == "Ingress" else other
            for port in rule.get("ports") or [None]:
                match = "" if port is None else _port(port, target)
                if match is not None:
                    yield f"{end} {match}".strip()


def _port(port: Object, target: Pod | None) -> str | None:
    """The match of a rule's port; None if the target has no port of that name."""
    protocol, number = port.get("protocol", "TCP"), port.get("port")
    if number is None:
        return f"-p {protocol.lower()}"
    if isinstance(number, str):
        number = target.ports.get((number, protocol)) if target is not None else None
        if number is None:
            return None
    last = port.get("endPort")
    span = f"{number}:{last}" if last is not None else f"{number}"
    return f"-p {protocol.lower()} --dport {span}"


def _without(network: IPv4Network, excluded: Iterable[IPv4Network]) -> list[IPv4Network]:
    """The parts of a network that remain without others in it."""
    parts = [network]
    for hole in excluded:
        parts = [rest for part in parts for rest in (part.address_exclude(hole) if hole.subnet_of(part) else [part])]
    return parts
