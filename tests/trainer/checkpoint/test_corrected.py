"""A checkpoint says which run it is of: corrections that leave its meaning are told, others are refused."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_trainer.checkpoint.format.manifest import read_manifest
from tests.support.checkpoints.opener import Opener, events, save

RUN = {"student": {"model": "n.yaml"}, "training": {"epochs": 10, "batch": 16}, "worldSize": 2}


@pytest.fixture
def open_at(tmp_path: Path) -> Iterator[Opener]:
    """Opens checkpointers on the test's directory, which has the checkpoint of step 3 of RUN."""
    opener = Opener(tmp_path / "checkpoints")
    save(opener(definition=RUN), 3)
    yield opener
    opener.close()


def test_a_run_that_is_the_same_resumes_silently(open_at: Opener, caplog: pytest.LogCaptureFixture) -> None:
    again = open_at(attempt=2, definition=RUN)
    assert again.newest() is not None
    assert events(again).spec_changes == []
    assert "another spec" not in caplog.text
    assert read_manifest(open_at.directory / "step-3").run == RUN


def test_an_allowed_correction_is_told_and_recorded(open_at: Opener, caplog: pytest.LogCaptureFixture) -> None:
    corrected = {**RUN, "training": {"epochs": 20, "batch": 16, "lr0": 0.001}}
    again = open_at(attempt=2, definition=corrected)
    with caplog.at_level(logging.WARNING):
        loaded = again.newest()
    assert loaded is not None
    assert "training.epochs 10, now 20; training.lr0 0.01, now 0.001" in caplog.text
    assert [(c.field, c.before, c.now) for c in events(again).spec_changes] == [
        ("training.epochs", 10, 20),
        ("training.lr0", 0.01, 0.001),
    ]
    save(again, 6)
    assert read_manifest(open_at.directory / "step-6").run == corrected


def test_a_checkpoint_of_another_run_is_refused_and_kept(open_at: Opener) -> None:
    other = {**RUN, "student": {"model": "s.yaml"}, "training": {"epochs": 20, "batch": 32}}
    with pytest.raises(Permanent) as refused:
        open_at(attempt=2, definition=other).newest()
    assert refused.value.reason == Reason.CHECKPOINT_MISMATCH
    assert "student.model n.yaml, now s.yaml; training.batch 16, now 32" in refused.value.message
    assert "epochs" not in refused.value.message, "that alone would do"
    assert open_at(attempt=3, definition=RUN).newest() is not None


def test_a_checkpoint_that_does_not_say_its_run_is_taken(tmp_path: Path) -> None:
    opener = Opener(tmp_path / "silent")
    save(opener(), 3)
    assert "run" not in (opener.directory / "step-3" / "manifest.json").read_text()
    assert opener(attempt=2, definition=RUN).newest() is not None
    opener.close()
