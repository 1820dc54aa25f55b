"""Reads what the ranks of a running gang say of themselves, through port-forwards."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Final, NamedTuple
from urllib.request import ProxyHandler, build_opener

from distill_api.constants import METRICS_PORT
from distill_client.apiserver.kinds import Object
from distill_client.client import Client, node_rank
from distill_client.errors import ClientError
from distill_client.job import Job
from distill_client.pods.forward import forwarded
from distill_client.pods.reader import runs

_AT_ONCE: Final = 16
_ANSWER_SECONDS: Final = 5.0


class RankMetrics(NamedTuple):
    """The metrics of one rank, as Prometheus reads them."""

    rank: int
    pod: str
    node: str
    exposition: str


def rank_metrics(client: Client, job: Job, pods: Iterable[Object]) -> list[RankMetrics]:
    """Those of all ranks in pods that run; a rank that does not answer, or may not be asked, is left out."""
    each = job.spec.processes_per_node
    asked = [(pod, local) for pod in pods if runs(pod) for local in range(each)]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        texts = list(threads.map(lambda place: _read(client, job.namespace, *place), asked))
    return [
        RankMetrics(node_rank(pod) * each + local, pod["metadata"]["name"], pod["spec"].get("nodeName") or "", text)
        for (pod, local), text in zip(asked, texts, strict=True)
        if text
    ]


def _read(client: Client, namespace: str, pod: Object, local_rank: int) -> str:
    port, opener = METRICS_PORT + local_rank, build_opener(ProxyHandler({}))  # no proxy for loopback
    try:
        with (
            forwarded(client.connection, namespace, pod["metadata"]["name"], port) as forward,
            opener.open(f"{forward.url}/metrics", timeout=_ANSWER_SECONDS) as answer,
        ):
            return str(answer.read().decode(errors="replace"))
    except (ClientError, OSError, HTTPException):
        return ""
