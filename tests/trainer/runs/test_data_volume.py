"""What runs do with a data set: they write nothing to it, scan it once, and notice when its labels change."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.ranks.in_process import STEPS, Volumes

FIRST = 3


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    made = Volumes(tmp_path)
    image = tmp_path / "data/images/train/000003.jpg"
    image.write_bytes(image.read_bytes()[:-2])  # Ultralytics would write it anew
    (tmp_path / "data/images/train/000004.npy").write_bytes(b"not an array")  # Ultralytics would delete it
    return made


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder, its bytes and its time of change; and every folder's."""
    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns) for path in paths}


def test_a_run_writes_nothing_to_its_data_and_scans_it_once(volumes: Volumes) -> None:
    data, labels = volumes.root / "data", volumes.root / "checkpoints/job/labels"
    before = state(data)
    assert volumes.run("job", "yolo26n.yaml", None, stop_after=FIRST) == FIRST
    file = state(labels)
    assert len(file) == 2  # the folder, and the one file in it
    volumes.run("job", "yolo26n.yaml", None)
    volumes.run("other", "yolo26n.yaml", None)
    assert state(data) == before
    assert state(labels) == file
    assert volumes.final_state("job", STEPS) == volumes.final_state("other", STEPS)


def test_the_teacher_is_scored_again_when_labels_have_changed(volumes: Volumes) -> None:
    teacher = volumes.save_model("yolo26s.yaml")
    score = volumes.root / "checkpoints/job/teacher.json"
    volumes.run("job", "yolo26n.yaml", teacher, stop_after=1)
    first = json.loads(score.read_text())
    volumes.run("job", "yolo26n.yaml", teacher, stop_after=3)
    assert json.loads(score.read_text()) == first
    for file in (volumes.root / "data/labels/val").iterdir():
        file.write_text("0 .5 .5 .2 .2\n")
    volumes.run("job", "yolo26n.yaml", teacher)
    again = json.loads(score.read_text())
    assert again["dataset"] != first["dataset"]
    assert again["per_class"].keys() != first["per_class"].keys()


def test_a_data_cache_changes_no_result_and_tells_how_full_it_is(volumes: Volumes, caplog: Any) -> None:
    caplog.set_level("INFO")
    volumes.run("plain", "yolo26n.yaml", None)
    half = {"size": "9Ki"}  # two blocks of 4 KiB
    assert volumes.run("job", "yolo26n.yaml", None, stop_after=FIRST + 1, dataCache=half) < STEPS
    volumes.run("job", "yolo26n.yaml", None)  # it can be removed
    volumes.run("other", "yolo26n.yaml", None, dataCache={"medium": "ram", "size": "1Gi"})
    for job in ("job", "other"):
        assert volumes.final_state(job, STEPS) == volumes.final_state("plain", STEPS)
    assert "dataCache: 2 of 2 images are on this node" in caplog.text
    assert "dataCache: 16 of 16 images are on this node" in caplog.text
    assert volumes.last_progress["cached_images"] == volumes.last_progress["cacheable_images"] == 16
