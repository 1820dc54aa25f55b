"""What `make chaos-cluster` makes of what it sees: a status that does not tell the truth is an error."""

import json
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.chaos.cluster import disruptions
from benchmarks.chaos.cluster.checks import PHASES, Disruption, complaints, complete
from benchmarks.chaos.cluster.disruptions import KINDS, schedule
from benchmarks.chaos.cluster.picture import bands
from benchmarks.chaos.cluster.runner import Failed, Runner, status_is_complete, wait
from benchmarks.chaos.cluster.testbed import STEPS_PER_EPOCH
from benchmarks.chaos.cluster.watching import Follower, Pod, Sample, Seen

INTERVAL = 3.0


def lived(attempt: int, began: float, start: int, reason: str | None, seen: Seen) -> None:
    """An attempt of two pods that makes a step a second for ten seconds, and commits the last one."""
    seen.created[attempt] = began
    for rank in range(2):
        times = {"placed": began + 1, "started": began + 2, "ended": began + 20}
        seen.pods[f"{attempt}/{rank}"] = Pod(f"p{rank}", f"{attempt}/{rank}", attempt, rank, **times)
    seen.answered[attempt], seen.stepped[attempt] = began + 5, began + 8
    for second in range(11):
        at, step = began + 7 + second, start + second
        seen.samples.append(Sample(at, attempt, "training", step, second, step, start, {}))
    seen.attempts[attempt] = {"number": attempt, "reason": reason, "resumedFromStep": start, "message": "why"}


def story(kind: str, **told: Any) -> tuple[Seen, list[Disruption]]:
    """A job that is disturbed once; `told` is what its second attempt's status says instead of the truth."""
    seen = Seen()
    lived(1, 0.0, 0, str(min(KINDS[kind].causes)), seen)
    lived(2, 22.0, 10, "Completed", seen)
    seen.attempts[2] |= {"lostSteps": 0} | told
    budgets = {budget: int(KINDS[kind].charged == budget) for budget in ("preemptions", "failures")}
    goodput = {"productiveSeconds": 20.0, "restartSeconds": 20.0}
    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:40Z"}
    seen.job = {"status": {**budgets, **times, "goodput": goodput}}
    made = Disruption(1, kind, 1, 17.5, 10, sorted(KINDS[kind].causes))
    complete(made, seen)
    return seen, [made]


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.ends], ids=lambda kind: kind.name)
def test_a_status_that_tells_what_was_done_is_believed(kind: Any) -> None:
    seen, made = story(kind.name)
    assert complaints(made, seen, INTERVAL) == []
    assert list(made[0].phases) == list(PHASES)
    assert made[0].recovery_seconds == sum(made[0].phases.values()) == 12.5


def test_whatever_differs_is_an_error() -> None:
    seen, made = story("preemption", resumedFromStep=8, lostSteps=2)
    assert any("2 steps were lost, but at most 0 are allowed" in text for text in complaints(made, seen, INTERVAL))
    seen, made = story("SIGKILL pod", resumedFromStep=8, lostSteps=2)
    assert complaints(made, seen, INTERVAL) == []
    seen, made = story("SIGKILL pod", resumedFromStep=1, lostSteps=9)
    assert any("9 steps were lost" in text for text in complaints(made, seen, INTERVAL))
    seen, made = story("SIGKILL pod", resumedFromStep=6, lostSteps=0)
    assert any("lostSteps is 0, but 4 steps were lost" in text for text in complaints(made, seen, INTERVAL))

    seen, made = story("eviction")
    seen.job["status"] |= {"preemptions": 0, "failures": 1}
    assert len(complaints(made, seen, INTERVAL)) == 2
    seen, made = story("eviction")
    made[0].cause = seen.attempts[1]["reason"] = "TrainerError"
    assert len(complaints(made, seen, INTERVAL)) == 2
    seen, made = story("eviction")
    seen.attempts[3] = {"number": 3, "reason": None}
    assert complaints(made, seen, INTERVAL)
    seen, made = story("eviction")
    seen.job["status"]["goodput"]["restartSeconds"] = 25.0
    assert any("goodput" in text for text in complaints(made, seen, INTERVAL))


def test_a_schedule_has_all_kinds_equally_often_and_depends_on_the_seed() -> None:
    drawn = schedule(20, random.Random(3))
    assert drawn == schedule(20, random.Random(3)) != schedule(20, random.Random(4))
    assert set(Counter(kind.name for kind in drawn).values()) == {2, 3}
    assert len(Counter(drawn)) == len(KINDS)


def test_the_bands_of_the_picture_leave_no_second_out() -> None:
    seen, _ = story("SIGKILL pod", resumedFromStep=8, lostSteps=2)
    found = bands(seen, 0.0, 40.0)
    assert (found[0].since, found[-1].until) == (0.0, 40.0)
    assert all(first.until == then.since for first, then in pairwise(found))
    kinds = [band.kind for band in found]
    assert kinds[:5] == ["waiting for capacity", "restart", "productive", "lost work", "restart"]


class Answers:
    """Stands for the cluster: kubectl answers with the operator's pods, nodes have no processes."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = pods
        self.called: list[tuple[str, ...]] = []

    def kubectl(self, *arguments: str, **_: Any) -> str:
        self.called.append(arguments)
        return json.dumps({"items": self.pods})

    def pod_processes(self, *_: str) -> list[Any]:
        return []

    def kill_pods(self, *_: str) -> int:
        return 0

    def stop_kubelet(self, node: str) -> None:
        self.called.append(("stop", node))

    def start_kubelet(self, node: str, _: float) -> None:
        self.called.append(("start", node))


def operator(container: str, *, ready: bool = True, phase: str = "Running") -> dict[str, Any]:
    state = {"running": {}} if phase == "Running" else {"terminated": {}}
    status = {
        "phase": phase,
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [{"containerID": container, "restartCount": 0, "state": state}],
    }
    return {"metadata": {"name": "operator", "uid": "uid"}, "spec": {"nodeName": "node0"}, "status": status}


def scene(cluster: Any) -> disruptions.Scene:
    seen = Seen()
    seen.pods["1/0"] = Pod("p0", "1/0", 1, 0, node="node0")
    return disruptions.Scene(cluster, seen, 1, random.Random(0))


def test_an_operator_that_serves_is_told_from_earlier_and_finished_pods() -> None:
    assert disruptions.serving_operator(Answers(operator("old", phase="Failed"), operator("new"))) == "new"
    assert disruptions.serving_operator(Answers(operator("new", ready=False))) is None
    leaving = operator("old")
    leaving["metadata"]["deletionTimestamp"] = "now"
    assert disruptions.serving_operator(Answers(leaving)) is None
    assert disruptions.serving_operator(Answers()) is None


def test_an_api_server_that_does_not_answer_is_no_operator_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: str, **__: Any) -> str:
        raise RuntimeError("connection refused")

    cluster = Answers()
    monkeypatch.setattr(cluster, "kubectl", refused)
    assert disruptions.serving_operator(cluster) is None


@pytest.mark.parametrize("act", [disruptions.kill_a_rank, disruptions.kill_the_pod, disruptions.kill_the_operator])
def test_a_disruption_that_hits_nothing_is_an_error(act: Any) -> None:
    with pytest.raises(RuntimeError, match=r"has no .* to kill"):
        act(scene(Answers(operator("one"))))


def test_a_gang_that_has_ended_by_itself_is_no_victim() -> None:
    met = scene(Answers())
    met.seen.pods["1/0"].ended = 1.0
    with pytest.raises(RuntimeError, match="attempt 1 has no pod to disrupt"):
        met.victim()


def test_a_node_is_given_back_when_its_disruption_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Answers()
    with pytest.raises(RuntimeError, match="node0 has a process to kill"):
        disruptions.stop_the_kubelet(scene(cluster))
    assert cluster.called[-2:] == [("stop", "node0"), ("start", "node0")]

    answer = cluster.kubectl

    def refused(*arguments: str, **_: Any) -> str:
        answer(*arguments)
        if "drain" in arguments:
            raise RuntimeError("timed out")
        return json.dumps({"items": []})

    monkeypatch.setattr(cluster, "kubectl", refused)
    with pytest.raises(RuntimeError, match="timed out"):
        disruptions.drain(scene(cluster))
    assert cluster.called[-1][-2:] == ("uncordon", "node0")


def follower() -> Follower:
    made = Follower.__new__(Follower)
    made._over, made._threads, made._following, made.seen = threading.Event(), ThreadPoolExecutor(), [], Seen()
    return made


def test_what_goes_while_a_watch_is_made_anew_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [{"metadata": {"uid": uid}} for uid in ("a", "b", "c")]
    lists, events = iter([items[:2], items[1:]]), iter([[{"type": "ADDED", "raw_object": items[2]}], []])
    watched: list[str] = []

    class Watch:
        def stream(self, _: Any, resource_version: str, **__: Any) -> Any:
            watched.append(resource_version)
            yield from next(events)

    def listing(**_: Any) -> Any:
        found = {"items": next(lists), "metadata": {"resourceVersion": str(len(watched))}}
        return SimpleNamespace(data=json.dumps(found))

    monkeypatch.setattr("benchmarks.chaos.cluster.watching.watch.Watch", Watch)
    told = [(kind, item["metadata"]["uid"]) for kind, item, _ in islice(follower()._stream(listing), 6)]
    assert told[:3] == [("MODIFIED", "a"), ("MODIFIED", "b"), ("ADDED", "c")]
    assert told[3:] == [("DELETED", "a"), ("MODIFIED", "b"), ("MODIFIED", "c")]
    assert watched == ["0"], "each watch begins where its list ends"


def test_a_thread_that_fails_ends_the_proof_and_is_no_job_that_stalls() -> None:
    blind = follower()

    def fails() -> None:
        raise KeyError("attempt")

    blind._following = [blind._threads.submit(fails)]
    blind._threads.shutdown()
    with pytest.raises(RuntimeError, match="following the job failed: KeyError"):
        wait(blind, lambda: False, "steps")


def test_a_job_that_ends_early_is_an_error_except_where_it_may() -> None:
    early = follower()
    early.seen.job = {"status": {"phase": "Succeeded"}}
    with pytest.raises(Failed, match="the job is Succeeded instead of: steps"):
        wait(early, lambda: False, "steps")
    with pytest.raises(Failed, match="not within 0 s: an operator"):
        wait(early, lambda: False, "an operator", ended=True, seconds=0)
    early.seen.job = {"status": {"phase": "Failed"}}
    with pytest.raises(Failed, match="the job is Failed instead of: an operator"):
        wait(early, lambda: False, "an operator", ended=True)


@pytest.mark.parametrize("seed", range(20))
def test_no_disruption_comes_so_late_that_the_job_ends_before_the_last_one(seed: int) -> None:
    draw = random.Random(seed)
    runner = Runner(cast(Any, None), schedule(9, draw), draw)
    end = runner.epochs * STEPS_PER_EPOCH
    for number, kind in enumerate(runner.kinds, 1):
        runner.seen.samples.append(Sample(0.0, number, "training", end, 1, end, end - 9, {}))  # far ahead of its time
        step = runner._next_step(number)
        left = runner.kinds[number - 1 :]
        assert step <= end - sum(one.spare_steps for one in left) - len(left)
        runner.made.append(Disruption(number, kind.name, number, 0.0, step, []))


def test_the_end_of_a_job_is_judged_by_a_status_that_tells_of_it() -> None:
    seen = Seen()
    seen.job = {"status": {"phase": "Succeeded", "attempts": [{"number": 1, "reason": "Evicted"}, {"number": 2}]}}
    assert not status_is_complete(seen)
    seen.job["status"]["attempts"][1]["reason"] = "Completed"
    assert not status_is_complete(seen)
    seen.job["status"]["finishedAt"] = "2026-01-01T00:00:40Z"
    assert status_is_complete(seen)
