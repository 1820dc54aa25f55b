"""Data from an OCI image or an init container, against a real API server, whose feature gate ImageVolume is off."""

from typing import Any

from distill_api.constants import Phase
from tests.support.apiserver.team import Team

RUNS: dict[str, Any] = {"claimName": "runs"}


def test_a_cluster_without_image_volumes_is_told_and_makes_no_pod(team: Team) -> None:
    team.submit(volumes={"checkpoints": RUNS, "data": {"image": {"reference": "coco:1"}}, "models": RUNS})
    told = team.waits_because("NotAdmitted")["message"]
    assert "this cluster has no image volumes, so the API server drops the volume data;" in told
    assert not team.api.list("Job", team.ns)
    assert not team.pods()


def test_an_empty_volume_is_filled_by_the_users_init_container(team: Team) -> None:
    fetch = {"name": "fetch", "image": "fetch:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    volumes = {"checkpoints": RUNS, "data": {"emptyDir": {"sizeLimit": "20Gi"}}, "models": RUNS}
    team.submit(volumes=volumes, template={"spec": {"initContainers": [fetch]}})
    team.reaches(Phase.STARTING)
    for pod in team.scheduled(1):
        assert {"name": "data", "emptyDir": {"sizeLimit": "20Gi"}} in pod["spec"]["volumes"]
        (mount,) = (m for m in pod["spec"]["initContainers"][0]["volumeMounts"] if m["name"] == "data")
        assert not mount.get("readOnly")
        (mount,) = (m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["name"] == "data")
        assert mount["readOnly"]
