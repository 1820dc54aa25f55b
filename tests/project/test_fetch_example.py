"""examples/fetch: the script of the init container, with the real aws and an S3 server; where it must break off at a
certain file, a copy of folders stands in for aws.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from distill_api.job import parse_job
from distill_operator.builders import build_job
from tests.support.machine.python import ROOT
from tests.support.operator.samples import SETTINGS
from tests.support.s3.server import S3, s3_server

EXAMPLE = ROOT / "examples/fetch"
SOURCE = "s3://datasets/coco"
AWS = """#!/bin/sh
# s3 sync SOURCE TARGET: copies what is not there; ends early once if there is a file `breaks`
echo "$@" >>"$BUCKET/../calls"
cd "$BUCKET"
for file in *; do
    [ -e "$4/$file" ] && continue
    if [ "$file" = 3.jpg ] && rm "$BUCKET/../breaks" 2>/dev/null; then exit 1; fi
    cp -p "$file" "$4/$file"
    echo "$file" >>"$BUCKET/../copied"
done
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A bucket of six files, an empty target, and the program that fetches."""
    for folder in ("bucket", "data", "bin"):
        (tmp_path / folder).mkdir()
    for number in range(6):
        (tmp_path / f"bucket/{number}.jpg").write_text(f"image {number}")
    (tmp_path / "bin/aws").write_text(AWS)
    (tmp_path / "bin/aws").chmod(0o755)
    return tmp_path


def fetch(place: Path, **variables: str) -> subprocess.Popen[str]:
    environment = {
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "BUCKET": str(place / "bucket"),
        "TARGET": str(place / "data"),
        "SOURCE": SOURCE,
        "PAUSE": "0",
        **variables,
    }
    return subprocess.Popen(
        ["sh", str(EXAMPLE / "fetch.sh")], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def fetched(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "data").glob("*.jpg"))


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def test_a_fetch_that_broke_off_goes_on_where_it_was(place: Path) -> None:
    (place / "breaks").touch()
    assert fetch(place, TRIES="1").wait(30) == 1
    assert fetched(place) == ["0.jpg", "1.jpg", "2.jpg"]
    assert not (place / "data/.fetched").exists()
    (place / "breaks").touch()
    assert fetch(place, TRIES="2").wait(30) == 0, "the second try succeeds"
    assert lines(place / "data/.fetched") == [SOURCE]
    assert lines(place / "copied") == [f"{number}.jpg" for number in range(6)]


def test_what_is_complete_is_not_fetched_again_but_another_source_is(place: Path) -> None:
    assert fetch(place).wait(30) == 0
    assert fetch(place).wait(30) == 0
    assert len(lines(place / "calls")) == 1
    assert fetch(place, SOURCE="s3://datasets/other").wait(30) == 0
    assert lines(place / "data/.fetched") == ["s3://datasets/other"]
    assert len(lines(place / "calls")) == 2


def test_on_a_shared_claim_the_other_pods_wait_for_the_first(place: Path) -> None:
    other = fetch(place, SHARED="true", JOB_COMPLETION_INDEX="1")
    try:
        assert other.stdout is not None
        assert "waiting until the first pod has fetched" in other.stdout.readline()
        assert not lines(place / "calls")
        assert fetch(place, SHARED="true", JOB_COMPLETION_INDEX="0").wait(30) == 0
        assert other.wait(30) == 0
    finally:
        other.kill()
    assert len(lines(place / "calls")) == 1


def test_an_unknown_kind_of_source_is_refused_at_once(place: Path) -> None:
    begun = time.monotonic()
    process = fetch(place, SOURCE="ftp://host/coco", PAUSE="60")
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, time.monotonic() - begun < 30) == (2, True)
    assert "must begin with s3://, gs:// or hf://" in out


def test_only_the_init_container_has_credentials_and_writes_to_the_data() -> None:
    job = parse_job(yaml.safe_load((EXAMPLE / "distilljob.yaml").read_text()))
    pod = build_job(job, "team", 1, job.spec.nodes, SETTINGS)["spec"]["template"]["spec"]
    (init,), (trainer,) = pod["initContainers"], pod["containers"]
    assert {"name": "data", "emptyDir": {"sizeLimit": "60Gi"}} in pod["volumes"]
    assert {"name": "data", "mountPath": "/data"} in init["volumeMounts"]
    assert {"name": "data", "mountPath": "/data", "readOnly": True} in trainer["volumeMounts"]
    assert {mount["name"] for mount in init["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
    assert "secretRef" in str(init)
    assert "secretRef" not in str(trainer)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3, Path]]:
    """`s3://datasets` on a server, and the folder that was uploaded to its `coco`."""
    folder = tmp_path_factory.mktemp("s3")
    source = folder / "source"
    for number in range(600):
        file = source / f"images/{number % 3}/{number:04}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(20_000))
    (source / "coco.yaml").write_text("names: [a b]\n")
    with s3_server(folder / "requests.log") as s3:
        s3.aws("s3", "mb", "s3://datasets")
        s3.aws("s3", "sync", source, SOURCE, "--only-show-errors")
        yield s3, source


def contents(folder: Path) -> dict[str, bytes]:
    """Images and the data set's YAML file; a killed aws leaves parts of files, which have other names."""
    files = (path for path in folder.rglob("*.*") if path.suffix in (".jpg", ".yaml"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def from_s3(s3: S3, target: Path, source: str = SOURCE, **variables: str) -> subprocess.Popen[str]:
    given = {**s3.environment, "SOURCE": source, "TARGET": str(target), "PAUSE": "0", "HOME": str(target.parent)}
    return subprocess.Popen(
        ["sh", str(EXAMPLE / "fetch.sh")],
        env=given | variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def test_a_killed_fetch_from_s3_goes_on_with_what_is_missing(bucket: tuple[S3, Path], tmp_path: Path) -> None:
    s3, source = bucket
    target = tmp_path / "data"
    target.mkdir()
    began = time.time()
    killed = from_s3(s3, target)
    deadline = time.monotonic() + 60
    while len(list(target.rglob("*.jpg"))) < 30:
        assert time.monotonic() < deadline
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait(30)
    there = {path: path.stat() for path in target.rglob("*.jpg")}
    assert 30 <= len(there) < 600
    # A file gets its object's time at last; without it, it is fetched again.
    whole = {path: found.st_ino for path, found in there.items() if found.st_mtime < began}
    assert len(whole) >= 10
    assert not (target / ".fetched").exists()

    again = from_s3(s3, target)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert contents(target) == contents(source)
    assert {path: path.stat().st_ino for path in whole} == whole, "what was there was fetched again"
    assert lines(target / ".fetched") == [SOURCE]


def test_s3_that_refuses_or_is_away_ends_without_a_mark(bucket: tuple[S3, Path], tmp_path: Path) -> None:
    s3, _ = bucket
    target = tmp_path / "data"
    target.mkdir()
    for source, variables in (("s3://absent/coco", {}), (SOURCE, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})):
        away = from_s3(s3, target, source, TRIES="2", AWS_MAX_ATTEMPTS="1", **variables)
        said, _ = away.communicate(timeout=120)
        assert away.returncode == 1, said
        assert f"error: {source} could not be fetched" in said
        assert "trying again, 2 of 2" in said
        assert not list(target.iterdir())
