"""examples/fetch: the script of the init container. A copy of folders stands in for the bucket's own program, aws."""

import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from distill_api.job import parse_job
from distill_operator.builders import build_job
from tests.support.machine.python import ROOT
from tests.support.operator.samples import SETTINGS

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
