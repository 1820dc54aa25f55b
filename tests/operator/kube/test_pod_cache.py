"""What the operator remembers of pods that are gone."""

from distill_operator.kube.pod_cache import Key, PodCache, with_departed
from tests.support.operator.samples import NOW, pod

KEY: Key = ("team", "tiny")


def raw_pod(uid: str, phase: str = "Running") -> dict[str, object]:
    metadata = {
        "name": uid,
        "uid": uid,
        "creationTimestamp": NOW.isoformat(),
        "labels": {"distilljob.dev/attempt": "1"},
    }
    return {"metadata": metadata, "status": {"phase": phase}}


def test_pods_that_were_noted_and_are_not_listed_any_more_are_gone() -> None:
    here, away = pod(0), pod(1)
    merged = with_departed([here], {here.uid: pod(0, phase="Pending"), away.uid: away})
    assert [(p.uid, p.gone, p.live) for p in merged] == [(here.uid, False, True), (away.uid, True, False)]
    assert merged[0].phase == "Running", "the list is newer than what was noted before it"


def test_the_last_facts_of_a_pod_are_kept_until_they_are_not_needed() -> None:
    evidence = PodCache()
    evidence.note(KEY, raw_pod("a"), deleted=False)
    evidence.note(KEY, raw_pod("a", "Failed"), deleted=True)
    evidence.note(KEY, raw_pod("b"), deleted=False)
    assert {uid: (p.phase, p.gone) for uid, p in evidence.of(KEY).items()} == {
        "a": ("Failed", True),
        "b": ("Running", False),
    }
    evidence.keep_only(KEY, {"b"})
    assert set(evidence.of(KEY)) == {"b"}
    evidence.keep_only(KEY, set())
    assert evidence.of(KEY) == {}
