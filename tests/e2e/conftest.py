"""One real cluster for the whole tier, with the operator installed by Helm; each test runs jobs of its own in it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from digits.demo import stage
from testcluster import Cluster
from tests.e2e.jobs import NAMESPACE, Jobs
from tests.support.audit import denied, requests
from tests.support.machine.python import ROOT

IMGSZ = 64
QUICK = {"operator.progressPollSeconds": "1", "operator.progressWriteSeconds": "1"}
"""Values of the chart with which a short training is seen sooner."""
OPERATOR = f"system:serviceaccount:{stage.SYSTEM_NAMESPACE}:distill-operator"


@pytest.fixture(scope="session")
def volumes() -> Iterator[Path]:
    """The directories behind the claims: a small data set, and models good and bad."""
    root = ROOT / "build" / "e2e"  # a kept cluster's claims lead here
    stage.make_directories(root)
    stage.make_digits(root / "data", train=64, val=16, imgsz=IMGSZ)
    make_models(root / "runs" / "models", stage.read_yaml(root / "data" / "digits.yaml")["names"])
    yield root
    if os.environ.get("KEEP") != "1":
        shutil.rmtree(root, ignore_errors=True)


def make_models(folder: Path, digits: dict[int, str]) -> None:
    """A teacher that fits the data, one with other classes, and a file that is no model."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    folder.mkdir(parents=True, exist_ok=True)
    for file, names in (("teacher.pt", digits), ("other-classes.pt", {0: "cat", 1: "dog", 2: "owl"})):
        teacher = YOLO("yolo26s.yaml")
        teacher.model = DetectionModel("yolo26s.yaml", nc=len(names), verbose=False)
        teacher.model.names = {int(index): name for index, name in names.items()}
        teacher.save(folder / file)
    (folder / "corrupt.pt").write_bytes((folder / "teacher.pt").read_bytes()[:50_000])
    (folder / "noise.pt").write_bytes(os.urandom(4096))


@pytest.fixture(scope="session")
def cluster(volumes: Path) -> Iterator[Cluster]:
    """A running cluster with the operator installed and the claims made. In the end the operator was denied nothing."""
    cluster, mine = stage.open_cluster(gpus=2, audit=True)
    try:
        cluster.load_image(stage.OPERATOR_IMAGE)
        cluster.load_image(stage.BASE_IMAGE)
        stage.install_operator(cluster, **QUICK)
        stage.prepare_namespace(cluster, NAMESPACE, volumes)
        log = cluster.audit_log if isinstance(cluster, Cluster) else None
        before = len(requests(log, OPERATOR)) if log else 0  # of a kept cluster's earlier run
        yield cluster
        if log is not None:
            assert denied(requests(log, OPERATOR)[before:]) == [], "the chart lacks rights that the operator needs"
    finally:
        if mine and os.environ.get("KEEP") != "1":
            cluster.down()


@pytest.fixture
def jobs(cluster: Cluster, volumes: Path, request: pytest.FixtureRequest) -> Iterator[Jobs]:
    """Makes, watches and disrupts jobs. What a test left is deleted; when it failed, what was seen is printed."""
    jobs = Jobs(cluster, volumes)
    failed_before = request.session.testsfailed
    yield jobs
    if request.session.testsfailed > failed_before or getattr(request.node, "failed_here", False):
        print(jobs.describe())
    jobs.delete_all()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call" and report.failed:
        item.failed_here = True  # type: ignore[attr-defined]
    return report
