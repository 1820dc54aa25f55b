"""`distill why` asks for what belongs to the job, and the ranks for their own metrics."""

import json
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from distill_trainer.process.telemetry.metrics import TrainerMetrics
from tests.client.conftest import Desk, allow, pod
from tests.support.apiserver.kubelet import KubeletServer
from tests.support.apiserver.nodes import Kubelet


@pytest.mark.usefixtures("gang")
def test_a_right_that_is_missing_leaves_out_only_its_own(desk: Desk, user: Callable[[str], Path]) -> None:
    allow(desk, "podwatcher", "distilljobs", "pods")
    desk.tell("tiny", {"phase": "Starting"})
    Kubelet(desk.api, desk.namespace).wait(pod(1), "ImagePullBackOff", "no such image")
    ended = desk.distill("why", "tiny", kubeconfig=user("podwatcher"))
    assert (ended.code, "pod tiny-a1-1-x: ImagePullBackOff: no such image" in ended.output) == (0, True), ended


def serve_metrics(folder: Path, data: float) -> ThreadingHTTPServer:
    """What a rank serves after a hundred steps of a second, with so many seconds in each that it waits for data."""
    metrics = TrainerMetrics(rank=0, world_size=2, checkpoint_interval=60, versions={})
    for step in range(100):
        metrics.step(images=4, seconds=1.0, step=step, epoch=0)
        metrics.phase("data", data)
    folder.mkdir()
    (folder / "metrics").write_bytes(metrics.exposition())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_why_asks_the_ranks_of_all_pods_where_their_time_goes(
    desk: Desk, gang: KubeletServer, tmp_path: Path, user: Callable[[str], Path]
) -> None:
    quick, slow = serve_metrics(tmp_path / "quick", 0.3), serve_metrics(tmp_path / "slow", 0.6)
    try:
        for name, port, server in (
            ("tiny-a1-0-x", 9400, quick),
            ("tiny-a1-0-x", 9401, quick),
            ("tiny-a1-1-x", 9401, slow),
        ):
            gang.ports_of[name, port] = server.server_port
        titles = [found["title"] for found in json.loads(desk.ok("why", "tiny", "-o", "json"))["findings"]]
        assert titles[1:] == ["Rank 3 on node1 is slower than the others.", "The ranks wait for data."]
        assert "slower" not in desk.ok("why", "tiny", "--no-ranks")
        allow(desk, "no-forwarder", "distilljobs", "pods")
        ended = desk.distill("why", "tiny", kubeconfig=user("no-forwarder"))
        assert (ended.code, "slower" in ended.output) == (0, False)
    finally:
        for server in (quick, slow):
            server.shutdown()
            server.server_close()
