"""`distill open`: report, curves and board through real port-forwards and commands in pods; Ctrl-C removes it all."""

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from distill_trainer.outputs.tensorboard import event_files
from tests.client.conftest import Desk, allow, pod, run_gang, run_next_reader, started
from tests.support.apiserver.api import Object, wait_for
from tests.support.apiserver.kubelet import KubeletServer
from tests.support.cli.opened import opened

REPORT = "<title>a report</title>"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[int]:
    """The port of what a reader pod or Grafana would serve: a folder with a report and pages of Grafana's."""
    folder = tmp_path / "web"
    for name, text in (("report.html", REPORT), ("api/health", "{}"), ("d/distilljob", "a board")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def readers(desk: Desk) -> list[Object]:
    return desk.api.list("Pod", desk.namespace, labelSelector="app.kubernetes.io/component=reader")


def test_report_of_an_ended_job_comes_from_a_pod_of_its_own(desk: Desk, kubelet: KubeletServer, web: int) -> None:
    started(desk, phase="Succeeded")
    kubelet.ports[8000] = web
    made = run_next_reader(desk.api, desk.namespace)
    with opened(desk.kubeconfig, desk.namespace, "tiny", "--image", "any:1") as shown:
        assert shown.address.endswith("/report.html")
        assert [shown.get().decode() for _ in range(3)] == [REPORT] * 3
        assert len(readers(desk)) == 1
        assert shown.interrupt() == 0
    assert readers(desk) == []
    (container,) = made[0]["spec"]["containers"]
    program = ["python3", "-m", "http.server", "8000", "--bind", "127.0.0.1", "--directory", "/checkpoints/tiny"]
    assert container["command"] == program


@pytest.mark.usefixtures("nodes")
def test_a_job_that_trains_has_no_report_and_makes_no_pod(desk: Desk, kubelet: KubeletServer) -> None:
    del kubelet
    started(desk)
    run_gang(desk, pod(0))
    ended = desk.distill("open", "tiny", "--no-browser")
    assert (ended.code, "no report yet" in ended.errors, "--tensorboard" in ended.errors) == (3, True, True)
    assert readers(desk) == []


def write_files(files: dict[Path, bytes]) -> None:
    for path, content in files.items():
        path.write_bytes(content)


@pytest.mark.usefixtures("nodes")
def test_tensorboard_shows_epochs_as_they_come(desk: Desk, kubelet: KubeletServer) -> None:
    started(desk)
    run_gang(desk, pod(0))
    ended = desk.distill("open", "tiny", "--tensorboard")
    assert (ended.code, "no curves yet" in ended.errors or "no files" in ended.errors) == (3, True)
    folder, rows = kubelet.volume / "tiny/tensorboard", [{"epoch": "1", "metrics/mAP50-95(B)": "0.25"}]
    folder.mkdir(parents=True)
    write_files(event_files(folder, rows, 1.0))
    with opened(desk.kubeconfig, desk.namespace, "tiny", "--tensorboard") as shown:

        def curve() -> list[float]:
            tags = json.loads(shown.get("data/plugin/scalars/tags"))
            if not tags.get("tiny"):
                return []
            points = json.loads(shown.get("data/plugin/scalars/scalars?run=tiny&tag=metrics%2FmAP50-95(B)"))
            return [value for _, _, value in points]

        wait_for(lambda: curve() == [0.25], 30)
        write_files(event_files(folder, [*rows, {"epoch": "2", "metrics/mAP50-95(B)": "0.5"}], 2.0))
        wait_for(lambda: curve() == [0.25, 0.5], 60)
        assert shown.interrupt() == 0


@pytest.mark.usefixtures("nodes")
def test_dashboard_comes_from_the_grafana_of_the_cluster(desk: Desk, kubelet: KubeletServer, web: int) -> None:
    started(desk)
    missing = desk.distill("open", "tiny", "--dashboard")
    assert (missing.code, "this cluster has no Grafana" in missing.errors) == (3, True)
    assert "charts/distill-operator/dashboards/distilljob.json" in missing.errors
    run_grafana(desk)
    kubelet.ports[3000] = web
    with opened(desk.kubeconfig, desk.namespace, "tiny", "--dashboard") as shown:
        assert shown.address.endswith(f"/d/distilljob?var-namespace={desk.namespace}&var-distilljob=tiny")
        assert shown.get() == b"a board"
        assert shown.interrupt() == 0
    kubelet.ports.clear()
    named = f"{desk.namespace}/grafana"
    gone = desk.distill("open", "tiny", "--dashboard", "--grafana", named, "--no-browser")
    assert (gone.code, "connection refused" in gone.errors) == (7, True)


def test_users_without_rights_are_told_which(desk: Desk, user: Callable[[str], Path], kubelet: KubeletServer) -> None:
    del kubelet
    started(desk)
    allow(desk, "looker", "distilljobs")
    ended = desk.distill("open", "tiny", "--dashboard", kubeconfig=user("looker"))
    assert (ended.code, "--grafana NAMESPACE/SERVICE" in ended.errors) == (6, True)


def run_grafana(desk: Desk) -> None:
    """A pod and a Service as Grafana's chart makes them."""
    labels = {"app.kubernetes.io/name": "grafana"}
    container = {"name": "grafana", "image": "grafana:1", "ports": [{"name": "grafana", "containerPort": 3000}]}
    spec = {"nodeName": "node0", "containers": [container]}
    run_gang(
        desk, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "grafana-0", "labels": labels}, "spec": spec}
    )
    ports = [{"name": "service", "port": 80, "targetPort": "grafana"}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "grafana", "labels": labels}}
    desk.api.create(service | {"spec": {"selector": labels, "ports": ports}}, desk.namespace)
