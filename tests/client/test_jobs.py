"""The client and the commands that change jobs."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from distill_client import Client, Conflict, JobFailed, NotFound, NotInstalled, Refused, TimedOut, Unreachable
from tests.client.conftest import Desk
from tests.support.apiserver.api import wait_for
from tests.support.apiserver.team import manifest

COMMITTED = {"epochs": 4, "step": 20, "steps": 200, "committedStep": 20}


def test_client_creates_lists_and_watches(desk: Desk) -> None:
    client = desk.client
    assert client.create(manifest(), dry_run=True).name == "tiny"
    assert client.list() == []
    made = client.create(desk.file())
    assert (made.namespace, made.spec.nodes, made.phase) == (desk.namespace, 2, "Pending")
    assert [job.name for job in client.list()] == ["tiny"]
    with pytest.raises(Conflict):
        client.create(manifest())
    seen: list[str] = []
    watcher = threading.Thread(target=lambda: seen.extend(job.phase for job in desk.client.watch("tiny", timeout=20)))
    watcher.start()
    desk.tell("tiny", {"phase": "Running", "observedGeneration": 1})
    desk.tell("tiny", {"phase": "Succeeded"})
    wait_for(lambda: "Succeeded" in seen, 20)
    client.delete("tiny")
    watcher.join(20)
    assert not watcher.is_alive(), "the watch of a job ends when it is deleted"
    assert seen[-1] == "Succeeded"


def test_wait_ends_with_the_job_or_says_why_not(desk: Desk) -> None:
    client = desk.client
    client.create(manifest())
    with pytest.raises(TimedOut, match="not finished after 1 s; distill why tiny"):
        client.wait("tiny", timeout=1)
    timer = threading.Timer(0.5, desk.tell, ("tiny", {"phase": "Succeeded", "observedGeneration": 1}))
    timer.start()
    assert client.wait("tiny", timeout=20).phase == "Succeeded"
    with pytest.raises(Conflict, match="has no result yet"):
        client.result("tiny")
    desk.tell("tiny", {"result": {"checkpoint": "tiny/weights/best.pt", "sha256": "ab", "studentMap": 0.5}})
    assert client.result("tiny").student_map == 0.5
    desk.tell("tiny", {"phase": "Failed"})
    with pytest.raises(JobFailed, match="no reason is recorded"):
        client.wait("tiny", timeout=5)


def test_what_a_change_of_spec_awaits_is_the_operator(desk: Desk) -> None:
    """A phase that was written before the last change says nothing about it."""
    client = desk.client
    client.create(manifest())
    desk.tell("tiny", {"phase": "Suspended", "observedGeneration": 1})
    assert client.suspend("tiny").generation == 2
    with pytest.raises(TimedOut):
        client.wait("tiny", "suspended", timeout=1)
    desk.tell("tiny", {"observedGeneration": 2})
    assert client.wait("tiny", "suspended", timeout=5).spec.suspend


def test_apply_says_what_it_will_do_and_does_it(desk: Desk) -> None:
    file = desk.file(elastic={"minNodes": 1})
    planned = desk.distill("apply", file, "--diff")
    assert planned.code == 9
    assert planned.output.startswith(
        "tiny is new\n  each attempt: 2 pods with 2 × nvidia.com/gpu (training on CPUs), 4 ranks, "
    )
    assert f"  data: claim digits, which does not exist in namespace {desk.namespace}\n" in planned.output
    assert desk.client.list() == []
    assert desk.ok("apply", file).endswith("tiny created\n")
    assert desk.ok("apply", file, "--diff") == "tiny is unchanged\n"
    changed = desk.file(elastic={"minNodes": 1}, nodes=1, checkpoint={"keep": 5})
    told = desk.distill("apply", changed, "--diff").output.splitlines()
    assert told[0] == "tiny changes:"
    assert [line.split() for line in told[1:]] == [
        ["checkpoint.keep", "3", "→", "5", "(from", "the", "next", "attempt)"],
        ["nodes", "2", "→", "1", "(at", "once)"],
    ]
    assert desk.ok("apply", changed).endswith("tiny changed\n")
    assert desk.client.get("tiny").spec.checkpoint.keep == 5
    assert desk.client.get("tiny").spec.nodes == 1


def test_apply_keeps_what_the_file_does_not_say(desk: Desk) -> None:
    desk.ok("apply", desk.file())
    desk.ok("suspend", "tiny")
    assert desk.ok("apply", desk.file()) == "tiny is unchanged\n"
    assert desk.client.get("tiny").spec.suspend


def test_apply_explains_what_is_refused(desk: Desk) -> None:
    desk.ok("apply", desk.file())
    attempt = {"number": 1, "nodes": 2, "startedAt": "2026-01-01T00:00:00Z", "committedStep": 20}
    running = {"phase": "Running", "attempt": 1, "attempts": [attempt], "progress": COMMITTED, "observedGeneration": 1}
    desk.tell("tiny", running)
    epochs = desk.distill("apply", desk.file(training={"epochs": 200}))
    assert epochs.code == 1
    assert "training.epochs  100 → 200  (refused: suspend the job first)" in epochs.output
    assert "error: " in epochs.errors
    assert "training defines the run" in epochs.errors
    batch = desk.distill("apply", desk.file(training={"batch": 32}), "--diff")
    assert batch.code == 1
    assert "training.batch  16 → 32  (refused: steps are committed; needs a new job)" in batch.output
    desk.ok("suspend", "tiny")
    desk.tell("tiny", {"phase": "Suspended"})
    longer = desk.distill("apply", desk.file(training={"epochs": 200}))
    assert (longer.code, "training.epochs  100 → 200  (when the job resumes)" in longer.output) == (0, True)


def test_an_invalid_file_ends_before_the_cluster_is_asked(desk: Desk) -> None:
    ended = desk.distill("apply", desk.file(training={"batsch": 1}))
    assert ended.code == 78
    assert "spec.training.batsch: unknown field; did you mean batch?" in ended.errors


def test_a_job_is_read_from_standard_input(desk: Desk) -> None:
    text = Path(desk.file()).read_text()
    checked = desk.distill("validate", "-", "--cluster", "--no-pod", stdin=text)
    assert (checked.code, checked.output.partition(",")[0]) == (0, "standard input: DistillJob tiny is valid"), checked
    applied = desk.distill("apply", "-", stdin=text)
    assert (applied.code, desk.client.get("tiny").spec.nodes) == (0, 2), applied
    changed = desk.distill("apply", "-", "--diff", stdin=text.replace("nodes: 2", "nodes: 1"))
    assert (changed.code, "nodes" in changed.output) == (1, True), changed
    wrong = desk.distill("apply", "-", stdin="kind: Pod")
    assert (wrong.code, "standard input: expected one document" in wrong.errors) == (78, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("apply", "{}"), 78, "spec.training.batsch: unknown field"),
        (("validate", "{}", "--cluster"), 78, "spec.training.batsch: unknown field"),
        (("apply", "absent.yaml"), 78, "absent.yaml: No such file or directory"),
        (("prune", "--older-than", "soon"), 2, "soon is not a duration"),
        (("open", "tiny", "--tensorboard", "--dashboard"), 2, "exclude each other"),
    ],
)
def test_mistakes_are_told_before_that_there_is_no_cluster(
    desk: Desk, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    file = desk.file(training={"batsch": 1})
    ended = desk.distill(*(word.format(file) for word in arguments), kubeconfig=tmp_path / "none")
    assert (ended.code, said in ended.errors, "no cluster" in ended.errors) == (code, True, False), ended


def test_validate_asks_the_api_server(desk: Desk) -> None:
    assert "accepts it" in desk.ok("validate", desk.file(), "--cluster", "--no-pod")
    assert desk.client.list() == []
    desk.ok("apply", desk.file())
    desk.tell("tiny", {"phase": "Running", "attempt": 1, "progress": COMMITTED})
    ended = desk.distill("validate", desk.file(student={"model": "yolo11n.yaml"}), "--cluster", "--no-pod")
    assert ended.code == 78
    assert "student defines the run" in ended.errors


def test_suspend_resume_and_scale_change_one_field(desk: Desk) -> None:
    desk.ok("apply", desk.file(elastic={"minNodes": 1}))
    assert desk.ok("suspend", "tiny") == "tiny commits a checkpoint and stops\n"
    assert desk.ok("suspend", "tiny") == "tiny is suspended already (Pending)\n"
    assert desk.ok("resume", "tiny") == "tiny resumes from the beginning\n"
    assert desk.ok("resume", "tiny") == "tiny is not suspended (Pending)\n"
    assert "2 → 1 nodes; the attempt commits" in desk.ok("scale", "tiny", "--nodes", "1")
    assert desk.client.get("tiny").spec.nodes == 1
    refused = desk.distill("scale", "tiny", "--nodes", "3")
    assert refused.code == 1
    assert "training.batch" in refused.errors


def test_delete_says_what_is_lost(desk: Desk) -> None:
    template = {"claimTemplate": {"resources": {"requests": {"storage": "1Gi"}}}}
    volumes = {"checkpoints": template, "data": {"claimName": "digits"}, "models": {"claimName": "runs"}}
    desk.ok("apply", desk.file("mine", volumes=volumes))
    desk.ok("apply", desk.file())
    kept = desk.distill("delete", "mine")
    assert (kept.code, "mine-checkpoints" in kept.errors) == (2, True)
    assert len(desk.client.list()) == 2
    assert desk.ok("delete", "tiny") == "tiny deleted\n"
    assert desk.ok("delete", "mine", "--yes") == "mine deleted\n"
    assert desk.client.list() == []


def test_prune_lists_first_and_leaves_what_is_young(desk: Desk) -> None:
    for name, phase, ended in (
        ("old", "Succeeded", "2026-01-01"),
        ("bad", "Failed", "2026-01-01"),
        ("new", None, None),
    ):
        desk.ok("apply", desk.file(name))
        if phase:
            desk.tell(name, {"phase": phase, "finishedAt": f"{ended}T00:00:00Z"})
    listed = desk.ok("prune", "--older-than", "4w")
    assert f"{desk.namespace}/old" in listed
    assert "its files stay in old/ of claim runs" in listed
    assert listed.endswith("2 jobs would be deleted; --yes deletes them\n")
    desk.ok("prune", "--failed", "--yes")
    assert [job.name for job in desk.client.list()] == ["new", "old"]
    desk.ok("prune", "--yes")
    assert [job.name for job in desk.client.list()] == ["new"]
    assert desk.distill("prune", "--older-than", "soon").code == 2


def test_restart_of_an_ended_job_needs_a_new_name(desk: Desk) -> None:
    desk.ok("apply", desk.file(suspend=True))
    desk.tell("tiny", {"phase": "Failed"})
    ended = desk.distill("restart", "tiny")
    assert (ended.code, "distill restart tiny --as NAME" in ended.errors) == (1, True)
    assert desk.ok("restart", "tiny", "--as", "again") == "again created with the spec of tiny; it begins at step 0\n"
    assert not desk.client.get("again").spec.suspend


@pytest.mark.parametrize("command", ["status", "why", "logs", "events", "suspend", "delete", "cost", "download"])
def test_an_unknown_job_is_told_with_similar_names(desk: Desk, command: str) -> None:
    desk.ok("apply", desk.file("yolo26n-coco"))
    ended = desk.distill(command, "yolo26-coco")
    assert ended.code == 3
    assert ended.errors.splitlines() == [
        f'error: there is no DistillJob "yolo26-coco" in namespace {desk.namespace}',
        "  try: did you mean yolo26n-coco?",
    ]


def test_what_is_forbidden_is_one_line(desk: Desk, user: Callable[[str], Path]) -> None:
    ended = desk.distill("list", kubeconfig=user("nobody"))
    assert ended.code == 6
    assert ended.errors.startswith('error: forbidden: you cannot list resource "distilljobs"')
    assert len(ended.errors.splitlines()) == 2


def test_without_a_cluster_the_error_is_one_line(desk: Desk, tmp_path: Path) -> None:
    missing = desk.distill("list", kubeconfig=tmp_path / "none")
    assert (missing.code, "no cluster: cannot use the kubeconfig" in missing.errors) == (4, True)
    config = yaml.safe_load(desk.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    dead = tmp_path / "dead"
    dead.write_text(yaml.safe_dump(config))
    ended = desk.distill("status", "tiny", kubeconfig=dead)
    assert (ended.code, "https://127.0.0.1:1 does not answer" in ended.errors) == (4, True)
    assert len(ended.errors.splitlines()) == 2
    other = desk.distill("list", "--context", "nowhere")
    assert (other.code, "use one of distill" in other.errors) == (4, True)


def test_errors_of_the_client_are_typed(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        desk.client.get("none")
    with pytest.raises(Refused, match="is invalid"):
        desk.client.create({"kind": "DistillJob"})
    with pytest.raises(Refused, match="for namespace other"):
        desk.client.create(manifest() | {"metadata": {"name": "tiny", "namespace": "other"}})
    with pytest.raises(Unreachable):
        Client(kubeconfig=tmp_path / "none")
    with pytest.raises(NotInstalled, match="the CRD is not installed"):
        desk.client.connection.request("GET", "/apis/distilljob.dev/v9/distilljobs")
