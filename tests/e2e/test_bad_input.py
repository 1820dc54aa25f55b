"""Mistakes that only show on the cluster: the job ends Failed, says why, and does not try again."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from digits.demo import stage
from testcluster import Cluster
from tests.e2e.jobs import NAMESPACE, Jobs, attempts

Spec = dict[str, Any]


def teacher(model: str) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        spec["teacher"] = {"model": model}

    return change


def dataset(config: str) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        spec["dataset"] = {"config": config}

    return change


def checkpoints(claim: str) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        spec["volumes"]["checkpoints"] = {"claimName": claim}

    return change


MISTAKES: dict[str, tuple[Callable[[Spec], None], str, str]] = {
    "missing-model": (teacher("models/absent.pt"), "ModelNotFound", "models/absent.pt"),
    "corrupt-model": (teacher("models/corrupt.pt"), "ModelInvalid", "models/corrupt.pt"),
    "noise-model": (teacher("models/noise.pt"), "ModelInvalid", "models/noise.pt"),
    "other-classes": (teacher("models/other-classes.pt"), "PairMismatch", "class"),
    "no-val-images": (dataset("no-val.yaml"), "DatasetInvalid", "val"),
    "no-data-set": (dataset("absent.yaml"), "DatasetInvalid", "absent.yaml"),
    "read-only": (checkpoints("read-only"), "StorageReadOnly", "/checkpoints"),
    "full": (checkpoints("full"), "StorageFull", "/checkpoints"),
}


@pytest.fixture(scope="module", autouse=True)
def awkward_volumes(cluster: object, volumes: Path) -> None:
    """A data set without val images, and claims on a read-only and on a full file system."""
    import subprocess

    data = volumes / "data"
    config = stage.read_yaml(data / "digits.yaml") | {"val": "images/none"}
    (data / "images" / "none").mkdir(exist_ok=True)
    (data / "no-val.yaml").write_text(stage.yaml.safe_dump(config))
    for name, options in (("read-only", "ro,size=1m"), ("full", "size=64k")):
        folder = volumes / name
        folder.mkdir(exist_ok=True)
        subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)  # of a run that was killed
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"{options},uid={stage.TRAINER_USER}", "tmpfs", folder], check=True
        )
    stage.apply(
        cluster,
        *(
            document
            for name in ("read-only", "full")
            for document in stage.host_claim(name, NAMESPACE, volumes / name, mode="ReadWriteMany")
        ),
    )
    yield
    for name in ("read-only", "full"):
        subprocess.run(["umount", "--lazy", volumes / name], check=True)
        shutil.rmtree(volumes / name, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def claimless(cluster: Cluster, volumes: Path) -> Iterator[Jobs]:
    """A job whose claim does not exist, for which the operator waits while the other tests run."""
    jobs = Jobs(cluster, volumes)
    spec = jobs.spec(epochs=1)
    checkpoints("absent")(spec)
    jobs.create("no-claim", spec)
    yield jobs
    jobs.delete_all()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_the_job_with_the_reason(jobs: Jobs, mistake: str) -> None:
    change, reason, says = MISTAKES[mistake]
    spec = jobs.spec(epochs=1)
    change(spec)
    jobs.create(mistake, spec)
    failed = jobs.failed(mistake)
    assert failed["reason"] == reason, failed
    assert says in failed["message"]
    assert "Traceback" not in failed["message"]
    assert len(attempts(jobs.get(mistake))) == 1, "it was tried again"
    assert "Traceback" not in jobs.logs(mistake)
    jobs.told(mistake, reason)


def test_a_pod_checks_a_job_before_it_is_created(jobs: Jobs, tmp_path: Path) -> None:
    """It finds what the job would, and leaves no job, no pod and no file."""
    for name, change, code, says in (
        ("well", teacher("models/teacher.pt"), 0, "yolo26n.yaml (2.5 M parameters) can learn from models/teacher.pt"),
        ("other-classes", teacher("models/other-classes.pt"), 78, "PairMismatch"),
        ("read-only", checkpoints("read-only"), 78, "StorageReadOnly"),
    ):
        spec = jobs.spec(epochs=1)
        change(spec)
        file = tmp_path / f"{name}.yaml"
        file.write_text(stage.yaml.safe_dump(stage.with_workspace(jobs.document(name, spec))))
        ended = jobs.run_distill("validate", str(file), "--cluster", "--timeout", "200")
        said = " ".join((ended.stdout + ended.stderr).split())
        assert ended.returncode == code, said
        assert says in said
        assert "Traceback" not in said
    assert "check" not in jobs.kubectl("get", "dj", "-o", "name")
    assert [folder.name for folder in (jobs.volumes / "runs").iterdir() if "-check-" in folder.name] == []


def test_a_claim_that_does_not_exist_is_named(claimless: Jobs) -> None:
    failed = claimless.failed("no-claim", seconds=120)
    assert failed["reason"] == "ClaimNotFound"
    assert "absent" in failed["message"]
    claimless.told("no-claim", "ClaimNotFound")


def test_the_api_server_refuses_a_bad_spec_and_says_what_to_change(jobs: Jobs) -> None:
    spec = jobs.spec(epochs=1)
    spec["training"]["batch"] = 5
    with pytest.raises(RuntimeError, match="must be divisible by nodes"):
        jobs.create("refused", spec)
