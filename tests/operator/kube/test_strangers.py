"""Labels are anybody's to set: a stranger's pod neither fails a pass nor blocks a job."""

import asyncio
from typing import Any

import pytest

from distill_api.constants import COMPLETION_INDEX, Label
from distill_operator.controller.operator import Operator
from distill_operator.kube.objects import Object, attempt_of, job_of_child, pod_facts
from distill_operator.kube.observe import Observer
from distill_operator.kube.pod_cache import PodCache
from tests.support.operator.samples import SETTINGS, UID, at, job
from tests.support.operator.server import KEY, Server


def labelled(labels: dict[str, str], *owners: Object) -> Object:
    metadata: dict[str, Any] = {"name": "stranger", "namespace": "team", "uid": "u", "labels": labels}
    metadata |= {"ownerReferences": list(owners), "creationTimestamp": "2026-11-23T11:00:00Z"}
    return {"metadata": metadata, "spec": {}, "status": {"phase": "Running"}}


def owner(kind: str, name: str) -> Object:
    return {"kind": kind, "name": name, "uid": "o", "controller": True}


@pytest.mark.parametrize(
    ("labels", "owners", "expected"),
    [
        ({Label.JOB: "tiny", Label.UID: UID}, (), "tiny"),
        ({Label.JOB: "tiny"}, (owner("Job", "tiny-a12"),), "tiny"),
        ({Label.JOB: "tiny"}, (owner("DistillJob", "tiny"),), "tiny"),
        ({Label.JOB: "tiny"}, (), None),
        ({Label.JOB: "tiny"}, (owner("Job", "tiny"),), None),
        ({Label.JOB: "tiny"}, (owner("ReplicaSet", "tiny-a1"),), None),
        ({Label.JOB: ""}, (owner("Job", "-a1"),), None),
        ({Label.JOB: "../../x", Label.UID: UID}, (), None),
        ({Label.JOB: "x" * 60, Label.UID: UID}, (), None),
        ({}, (owner("Job", "tiny-a1"),), None),
    ],
)
def test_a_child_is_known_by_its_owner_or_the_uid(
    labels: dict[str, str], owners: tuple[Object, ...], expected: str | None
) -> None:
    assert job_of_child(labelled(labels, *owners)) == expected


@pytest.mark.parametrize("text", ["abc", "", "-1", "1.5", "٣", "9" * 40])
def test_numbers_in_labels_that_are_none_are_ignored(text: str) -> None:
    pod = labelled({Label.JOB: "tiny", Label.UID: UID, Label.ATTEMPT: text, COMPLETION_INDEX: text})
    assert (attempt_of(pod), pod_facts(pod).rank) == (0, None)


@pytest.mark.parametrize("labels", [{Label.JOB: ""}, {Label.JOB: "tiny"}, {Label.JOB: "tiny", COMPLETION_INDEX: "x"}])
def test_a_strangers_pod_wakes_nothing_and_is_not_kept(labels: dict[str, str]) -> None:
    operator = Operator(SETTINGS)
    operator.pod_changed(labelled(labels), deleted=False)
    operator.child_changed(labelled(labels))
    assert operator._pod_cache.of(KEY) == {}


def test_a_strangers_pod_does_not_block_a_job() -> None:
    server = Server(job(), {})
    server.listed = {"Pod": [labelled({Label.JOB: "tiny", Label.ATTEMPT: "1"})]}
    observation = asyncio.run(Observer(server, PodCache(), SETTINGS.resync, lambda: at(0)).observe(KEY, fresh=True))
    assert observation is not None
    assert observation.observed.live_pods == ()
