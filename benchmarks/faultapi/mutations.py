"""Random changes of the specs of live jobs: the API server refuses each in words, or the operator follows it."""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.faultapi.disturbed import Row
from benchmarks.faultapi.testbed import PATIENCE, Lane
from benchmarks.faultapi.values import Values
from distill_api.constants import VERSION, Label, Phase
from tests.support.apiserver.api import Object, Refused, wait_for
from tests.support.apiserver.team import Team, manifest, stopped

PER_JOB = 25
"""Changes of one job, unless it ends before."""
MANY_WRITES = 40
"""As many writes after one change mean that passes undo each other's work."""
FAILING = 0.2
"""How often a worker fails first, so that the next attempt starts with the changed spec."""
OVER = (Phase.SUCCEEDED, Phase.FAILED)


@dataclass
class Told:
    """What became of the changes of one job."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    last: str = ""


def run(lane: Lane, seed: int, count: int, say: Callable[[Row], None]) -> list[Row]:
    """So many changes, of one job after the other; a row for each job."""
    crd = lane.team.api.get("CustomResourceDefinition", "", "distilljobs.distilljob.dev") or {}
    (version,) = [version for version in crd["spec"]["versions"] if version["name"] == VERSION]
    values = Values(version["schema"]["openAPIV3Schema"]["properties"]["spec"], seed)
    rows: list[Row] = []
    done = 0
    while done < count:
        began, told = time.monotonic(), Told()
        lane.begin()
        try:
            _one_job(lane, values, min(PER_JOB, count - done), told)
        except AssertionError as error:
            told.problems.append(f"after {told.last}: {error}")
        problems = told.problems + [f"logged {error}" for error in lane.errors()] + lane.watcher.broken
        if lane.exits:
            problems.append(f"the operator ended by itself {lane.exits} times; last change: {told.last}")
        changes = max(told.counts["followed"] + told.counts["refused"], 1)
        name = f"changes {done + 1} to {done + changes}"
        rows.append(Row("mutations", name, tuple(problems), time.monotonic() - began, told.counts))
        done += changes
        say(rows[-1])
    return rows


def _one_job(lane: Lane, values: Values, most: int, told: Told) -> None:
    team = lane.team
    _submit(team, values, told)
    uid = (team.raw() or {})["metadata"]["uid"]
    for _ in range(most):
        if values.random.random() < FAILING:
            _fail_a_worker(team)
        told.last = json.dumps(change := values.change())[:600]
        before = len(lane.proxy.writes)
        try:
            changed = team.api.patch("DistillJob", team.ns, "tiny", {"spec": change})
        except Refused as refused:
            if refused.code == 404:  # it has ended, and its TTL, too
                told.counts["ended the job"] += 1
                break
            _judge(refused, told, "refused")
            continue
        told.counts["followed"] += 1
        wait_for(partial(_followed, team, changed), 15 * PATIENCE, lambda: _where(team))
        if len(lane.proxy.writes) - before > MANY_WRITES:
            told.problems.append(f"{len(lane.proxy.writes) - before} writes after {told.last}")
        job = team.raw()
        if job is None or (job.get("status") or {}).get("phase") in OVER:
            told.counts["ended the job"] += 1
            break
    _delete(lane, uid)


def _submit(team: Team, values: Values, told: Told) -> None:
    """A job with a changed spec; if that is refused, the usual one."""
    spec = {"suspend": values.random.random() < 0.2}
    told.last = json.dumps(change := values.change())[:600]
    try:
        team.submit(**merged({**manifest()["spec"], **spec}, change))
        told.counts["created"] += 1
    except Refused as refused:
        _judge(refused, told, "not created")
        team.submit(**spec)
    made = team.raw()
    wait_for(lambda: made is None or _followed(team, made), 15 * PATIENCE, lambda: _where(team))


def merged(value: Any, change: Any) -> Any:
    """A value after a merge patch (RFC 7386)."""
    if not isinstance(change, dict):
        return change
    old = value if isinstance(value, dict) else {}
    new = {name: merged(old.get(name), part) for name, part in change.items() if part is not None}
    return {name: part for name, part in old.items() if name not in change} | new


def _judge(refused: Refused, told: Told, what: str) -> None:
    told.counts[what] += 1
    if refused.code not in (400, 422) or len(refused.message) < 20:
        told.problems.append(f"refused without a reason: {told.last}: {refused}")


def _followed(team: Team, changed: Object) -> bool:
    tend(team)
    job = team.raw()
    seen = ((job or {}).get("status") or {}).get("observedGeneration") or 0
    return job is None or job["metadata"]["uid"] != changed["metadata"]["uid"] or seen >= _generation(changed)


def _generation(job: Object) -> int:
    return int(job["metadata"]["generation"])


def _where(team: Team) -> Any:
    return f"the operator does not follow: {json.dumps((team.raw() or {}).get('status'))[:1500]} {team.operator.tail()}"


def _delete(lane: Lane, uid: str) -> None:
    """Delete the job; nothing of it may be left."""
    team = lane.team
    team.api.delete("DistillJob", team.ns, "tiny")

    def gone() -> bool:
        tend(team)
        return uid in lane.watcher.deleted and not lane.leftovers()

    wait_for(gone, 20 * PATIENCE, lambda: f"orphans: {lane.leftovers()}")


def tend(team: Team) -> None:
    """What the kubelets do: start the pods that have a node, and stop those that are deleted."""
    for pod in team.pods():
        metadata, status = pod["metadata"], pod["status"]
        attempt = int(metadata["labels"].get(Label.ATTEMPT, 0))
        rank = metadata["labels"]["batch.kubernetes.io/job-completion-index"]
        try:
            if metadata.get("deletionTimestamp"):
                if status["phase"] == "Running":
                    team.kubelet.end(pod, 143, stopped(attempt, 10))
                team.kubelet.remove(pod)
            elif status["phase"] == "Pending" and pod["spec"].get("nodeName"):
                team.kubelet.run(pod, team.rank0.ip if rank == "0" else "127.0.0.1")
                if rank == "0":
                    team.say(attempt, step=20, committed=10, uid=metadata["labels"][Label.UID])
        except Refused as refused:
            if refused.code != 404:  # it is gone meanwhile
                raise


def _fail_a_worker(team: Team) -> None:
    running = [pod for pod in team.pods() if pod["status"]["phase"] == "Running"]
    if running:
        team.kubelet.end(running[-1], 1)
