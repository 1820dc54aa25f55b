"""The commands that look at jobs, pods and the installation, and those that fetch files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.client.conftest import SHA256, WEIGHTS, Desk, pod, run_gang, run_next_reader, started, write_results
from tests.support.apiserver.kubelet import KubeletServer
from tests.support.apiserver.nodes import Nodes


def test_list_in_every_format(desk: Desk) -> None:
    started(desk)
    desk.ok("apply", desk.file("other"))
    table = desk.ok("list").splitlines()
    assert [line.split()[:2] for line in table] == [["NAME", "PHASE"], ["other", "Pending"], ["tiny", "Running"]]
    assert "yolo26n ← teacher" in desk.ok("list", "-o", "wide")
    assert desk.ok("list", "-o", "name").splitlines() == [
        "distilljob.distilljob.dev/other",
        "distilljob.distilljob.dev/tiny",
    ]
    listed = json.loads(desk.ok("list", "-o", "json"))
    assert (listed["kind"], [item["metadata"]["name"] for item in listed["items"]]) == ("List", ["other", "tiny"])
    assert yaml.safe_load(desk.ok("status", "tiny", "-o", "yaml"))["status"]["phase"] == "Running"
    assert desk.ok("status", "tiny", "-o", "name") == "distilljob.distilljob.dev/tiny\n"
    everywhere = desk.ok("list", "-A").splitlines()
    assert everywhere[0].split()[0] == "NAMESPACE"


@pytest.mark.usefixtures("gang")
def test_status_shows_pods_progress_and_curves(desk: Desk) -> None:
    screen = desk.ok("status", "tiny")
    assert "tiny  Running" in screen
    assert "epoch 2/4" in screen
    assert "node0  Running" in screen
    assert "distillation  █▁" in screen


def test_status_is_followed_to_the_end_with_its_exit_code(desk: Desk) -> None:
    started(desk)
    desk.tell("tiny", {"phase": "Failed"})
    assert desk.distill("status", "tiny", "-w").code == 8
    desk.tell("tiny", {"phase": "Succeeded"})
    assert desk.distill("status", "tiny", "-w").code == 0


@pytest.mark.usefixtures("gang")
def test_logs_are_of_rank_0_of_another_or_of_all_in_order(desk: Desk) -> None:
    assert desk.ok("logs", "tiny").splitlines()[0] == "rank 0 starts"
    assert desk.ok("logs", "tiny", "--rank", "3").splitlines() == ["rank 2 starts", "rank 2 goes on"]
    merged = [line.partition("] ")[2] for line in desk.ok("logs", "tiny", "--all").splitlines()]
    assert [line[:12] for line in merged] == [
        "rank 0 start",
        "rank 2 start",
        "epoch 1/4  b",
        "rank 2 goes ",
        "epoch 2/4  b",
    ]
    assert desk.ok("logs", "tiny", "--tail", "1", "--timestamps").startswith("2026-11-23T12:00:06.500000000Z epoch 2/4")
    assert desk.distill("logs", "tiny", "--rank", "9").code == 3


def test_logs_that_are_followed_end_with_the_pods(desk: Desk, gang: KubeletServer) -> None:
    lines = desk.client.logs("tiny", follow=True)
    first = [next(lines) for _ in range(5)]
    assert [line.time for line in first] == sorted(line.time for line in first)
    gang.followed.set()
    assert list(lines) == []


def test_the_operators_lines_are_those_about_the_job(desk: Desk, nodes: Nodes, kubelet: KubeletServer) -> None:
    del nodes
    started(desk)
    assert desk.distill("logs", "tiny", "--operator").code == 3
    made = pod(0)
    labels = {"app.kubernetes.io/component": "operator", "app.kubernetes.io/part-of": "distill-operator"}
    made["metadata"] = {"name": "operator-x", "labels": labels}
    made["spec"]["containers"][0]["name"] = "operator"
    run_gang(desk, made)
    lines = [f"INFO {name}: Running" for name in (f"{desk.namespace}/tiny", "other/tiny", f"{desk.namespace}/tiny-2")]
    kubelet.logs["operator-x"] = [f"2026-11-23T12:00:00Z {line}" for line in lines]
    assert desk.ok("logs", "tiny", "--operator").splitlines() == [lines[0]]


def test_logs_of_a_lost_attempt_are_what_was_recorded(desk: Desk) -> None:
    started(desk)
    ended = {
        "number": 1,
        "nodes": 2,
        "startedAt": "2026-11-23T12:00:00Z",
        "outcome": "Disrupted",
        "reason": "Preempted",
    }
    now = {"number": 2, "nodes": 2, "startedAt": "2026-11-23T12:01:00Z"}
    record = {"message": "pod tiny-a1-1 was preempted", "decision": ["rule: disruption"]}
    desk.tell("tiny", {"attempt": 2, "attempts": [ended | record, now]})
    told = desk.distill("logs", "tiny", "--previous")
    assert told.code == 0
    assert told.output.splitlines() == ["Preempted: pod tiny-a1-1 was preempted", "rule: disruption"]
    assert desk.distill("logs", "tiny").code == 3


def test_events_are_those_of_the_job_and_its_children(desk: Desk) -> None:
    started(desk)
    for kind, name in (("DistillJob", "tiny"), ("Pod", "tiny-a1-0-x"), ("Pod", "tiny-api-0"), ("Job", "other-a1")):
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": "e", "namespace": desk.namespace},
            "involvedObject": {"kind": kind, "name": name, "namespace": desk.namespace},
            "reason": f"Of{kind}",
            "message": f"about {name}",
            "type": "Warning",
            "lastTimestamp": "2026-11-23T12:00:00Z",
        }
        desk.api.create(event, desk.namespace)
    found = json.loads(desk.ok("events", "tiny", "-o", "json"))
    assert sorted(event["message"] for event in found) == ["about tiny", "about tiny-a1-0-x"]
    assert "OfPod" in desk.ok("events", "tiny")


def test_top_counts_gpus_by_job_and_node(desk: Desk, nodes: Nodes) -> None:
    del nodes
    started(desk)
    run_gang(desk, pod(0, gpus=2), pod(1, gpus=1))
    view = json.loads(desk.ok("top", "-o", "json"))
    assert [(job["name"], job["pods"], job["accelerators"]) for job in view["jobs"]] == [("tiny", 2, 3)]
    used = {node["name"]: (node["used"], node["capacity"], node["jobs"]) for node in view["nodes"]}
    assert used == {"node0": (2, 2, ["tiny"]), "node1": (1, 2, ["tiny"])}
    assert "node0  2/2" in desk.ok("top")


def test_compare_shows_what_differs_and_draws_it(desk: Desk, gang: KubeletServer, tmp_path: Path) -> None:
    del gang
    desk.ok("apply", desk.file("long", training={"epochs": 200}))
    picture = tmp_path / "picture.svg"
    screen = desk.ok("compare", "tiny", "long", "--picture", str(picture))
    assert "training.epochs" in screen
    assert "training.batch" not in screen
    assert picture.read_text().count("<polyline") == 2


def test_compare_reads_whole_curves_from_the_claim(desk: Desk, gang: KubeletServer) -> None:
    file = gang.volume / "tiny/results.csv"
    file.parent.mkdir()
    rows = ["epoch,time,train/box_loss,train/dis_loss,metrics/mAP50-95(B)", "1,2,3,6,0.1", "2,4,2,5,0.2", "3,6,1,4,0.3"]
    file.write_text("\n".join(rows))
    (found,) = json.loads(desk.ok("compare", "tiny", "--full", "-o", "json"))["curves"]
    assert (found["epochs"], found["student_map"]) == ([1, 2, 3], [0.1, 0.2, 0.3])
    assert found["losses"] == {"box": [3.0, 2.0, 1.0], "dis": [6.0, 5.0, 4.0]}


def test_doctor_says_what_is_missing(desk: Desk, user: Callable[[str], Path]) -> None:
    ended = desk.distill("doctor", "-o", "json")
    checks = {check["name"]: check for check in json.loads(ended.output)}
    assert (ended.code, checks["operator"]["level"]) == (1, "fail")
    assert checks["CRD"]["says"] == "the same version as distill"
    assert checks["rights"]["level"] == "ok"
    assert checks["claims"]["level"] == "warn"
    poor = desk.distill("doctor", kubeconfig=user("poor"))
    assert poor.code == 1
    assert "you may not: list DistillJobs; create DistillJobs" in " ".join(poor.output.split())


def test_version_asks_the_cluster(desk: Desk) -> None:
    told = desk.ok("version", "--cluster").splitlines()
    assert "crd: the same as distill's" in told
    assert "operator: not found" in told


def test_download_reads_in_rank_0s_pod(desk: Desk, gang: KubeletServer, tmp_path: Path) -> None:
    write_results(gang)
    assert "checkpoints" not in desk.ok("download", "tiny", "--list")
    assert "3 files in" in desk.ok("download", "tiny", "-d", str(tmp_path / "to"))
    assert (tmp_path / "to/weights/best.pt").read_bytes() == WEIGHTS
    assert not (tmp_path / "to/checkpoints").exists()
    assert set(gang.commands) == {"tiny-a1-0-x"}
    assert desk.distill("download", "tiny", "--only", "*.onnx").code == 3
    (gang.volume / "tiny").rename(gang.volume / "gone")
    gone = desk.distill("download", "tiny")
    assert (gone.code, "has left no files" in gone.errors) == (3, True)


def test_weights_that_are_not_the_results_are_refused(desk: Desk, gang: KubeletServer, tmp_path: Path) -> None:
    write_results(gang)
    desk.tell("tiny", {"result": {"checkpoint": "tiny/weights/best.pt", "sha256": SHA256}})
    desk.ok("download", "tiny", "--only", "weights/*", "-d", str(tmp_path / "good"))
    (gang.volume / "tiny/weights/best.pt").write_bytes(b"other")
    ended = desk.distill("download", "tiny", "--only", "weights/*", "-d", str(tmp_path / "bad"))
    assert ended.code == 1
    assert "weights/best.pt is not the job's result" in ended.errors
    assert not (tmp_path / "bad/weights/best.pt").exists()


def test_files_of_an_ended_job_are_read_by_a_pod_of_its_own(desk: Desk, kubelet: KubeletServer, tmp_path: Path) -> None:
    """The test says as kubelet that the pod runs. It is gone afterwards, and cannot be taken for a training pod."""
    started(desk, phase="Succeeded")
    write_results(kubelet)
    made = run_next_reader(desk.api, desk.namespace)
    assert "1 file in" in desk.ok("download", "tiny", "--only", "report.html", "-d", str(tmp_path), "--image", "any:1")
    (reader,) = made
    assert reader["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "runs", "readOnly": True}
    assert not any(label.startswith("distilljob.dev") for label in reader["metadata"]["labels"])
    assert kubelet.commands == [reader["metadata"]["name"]] * 2
    assert desk.api.list("Pod", desk.namespace) == []
