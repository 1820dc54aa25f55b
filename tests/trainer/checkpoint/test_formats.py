"""Checkpoints of other formats and other versions: every released one is read, a newer one is refused and kept."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_api.errors import Permanent, Retryable
from distill_api.reasons import Reason
from distill_trainer.checkpoint.format import manifest
from distill_trainer.checkpoint.format.layout import committed_steps
from distill_trainer.checkpoint.format.manifest import FORMAT, READABLE, Damaged, Manifest, UnknownFormat, read_manifest
from distill_trainer.checkpoint.format.versions import Versions
from distill_trainer.checkpoint.reading import load_newest
from tests.support.checkpoints.golden import GOLDEN, UID, golden_state, untrained
from tests.support.checkpoints.opener import Opener, events, save
from tests.support.ranks.launched import Gang

CHECKPOINTS = sorted(GOLDEN.glob("format-*/step-*"))
NEWER = FORMAT + 1


@pytest.fixture
def open_at(tmp_path: Path) -> Iterator[Opener]:
    """Opens checkpointers on the test's directory."""
    opener = Opener(tmp_path / "checkpoints")
    yield opener
    opener.close()


@pytest.fixture
def gang(tmp_path: Path) -> Iterator[Gang]:
    """A gang whose processes do not outlive the test."""
    gang = Gang(tmp_path)
    yield gang
    gang.end()


def assert_same(ours: Any, theirs: Any, place: str = "state") -> None:
    """Type, value and, of tensors, format, shape and strides."""
    assert type(ours) is type(theirs), place
    if isinstance(theirs, torch.Tensor):
        assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride()), place
        assert torch.equal(ours, theirs), place
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), place
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{place}[{key!r}]")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), place
        for index, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(our, their, f"{place}[{index}]")
    else:
        assert ours == theirs, place


@pytest.mark.parametrize("golden", CHECKPOINTS, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_checkpoint_of_every_released_format_is_read_exactly(golden: Path, tmp_path: Path) -> None:
    shutil.copytree(golden, tmp_path / golden.name)
    loaded = load_newest(tmp_path, UID, pytest.fail)
    assert loaded is not None
    expected = golden_state(loaded.step)
    assert loaded.step == int(golden.name.removeprefix("step-"))
    assert_same(loaded.state, expected)

    training = untrained()
    training.restore(loaded.state)
    collected = training.collect()
    for part in ("student", "projector", "ema", "ema_updates", "scaler"):
        assert_same(collected[part], expected[part], part)
    assert_same(collected["optimizer"]["state"], expected["optimizer"]["state"])
    for ours, theirs in zip(collected["optimizer"]["param_groups"], expected["optimizer"]["param_groups"], strict=True):
        assert {name: ours[name] for name in theirs} == theirs  # a later PyTorch may have further settings
    assert {name: collected["progress"][name] for name in expected["progress"]} == expected["progress"]


def test_every_format_that_is_read_has_a_golden_checkpoint() -> None:
    assert FORMAT in READABLE
    assert {int(path.parent.name.removeprefix("format-")) for path in CHECKPOINTS} == READABLE
    for path in CHECKPOINTS:
        assert path.parent.name == f"format-{json.loads((path / 'manifest.json').read_text())['format']}"


def test_versions_that_a_manifest_does_not_say_are_unknown() -> None:
    silent, telling = (read_manifest(GOLDEN / f"format-1/step-{step}").versions for step in (3, 6))
    assert silent == Versions("2.15.0+cu132")
    assert telling == Versions("2.15.0+cu132", "8.4.190", "0.1.0")
    assert silent.changed_to(telling) == {}


Edit = Callable[[dict[str, Any]], dict[str, Any]]


def manifest_of(**changes: Any) -> Edit:
    """Keys that are set; those that are set to ... are taken away."""

    def edit(content: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in (content | changes).items() if value is not ...}

    return edit


def sealed(edit: Edit) -> Edit:
    """With the digest that today's rule gives it."""

    def edit_and_seal(content: dict[str, Any]) -> dict[str, Any]:
        body = manifest_of(digest=...)(edit(content))
        return body | {"digest": manifest._digest(body)}

    return edit_and_seal


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (sealed(manifest_of(format=NEWER)), UnknownFormat),
        (sealed(manifest_of(format=NEWER, step=..., uid=..., files=..., parts=[1])), UnknownFormat),
        (sealed(manifest_of(format=0)), UnknownFormat),
        (lambda _: {"format": NEWER}, UnknownFormat),
        (manifest_of(format=NEWER, digest=...), UnknownFormat),
        (manifest_of(format=NEWER, digest={"blake3": "00"}, files=[]), UnknownFormat),
        (manifest_of(format=NEWER, step=9), UnknownFormat),
        (manifest_of(format=NEWER), Damaged),
        (manifest_of(format=0), Damaged),
        (manifest_of(format=...), Damaged),
        (manifest_of(format="2", step=9), Damaged),
        (manifest_of(format=True, step=9), Damaged),
        (manifest_of(digest=...), Damaged),
        (manifest_of(step=9), Damaged),
        (sealed(manifest_of(files=...)), Damaged),
    ],
    ids=[
        "a newer one",
        "a newer one with other keys",
        "an older one that is no longer read",
        "nothing but the number",
        "a newer one without a digest",
        "a newer one with a digest of another kind",
        "a newer one that is damaged",
        "only the number is damaged",
        "the number is damaged to one that never was",
        "no number",
        "a word for the number",
        "true for the number",
        "no digest",
        "a damaged field",
        "a field is missing",
    ],
)
def test_another_format_is_told_from_damage(edit: Edit, error: type[Exception]) -> None:
    content = json.loads((GOLDEN / "format-1/step-6/manifest.json").read_bytes())
    with pytest.raises(error):
        Manifest.from_bytes(json.dumps(edit(content)).encode())


@pytest.mark.parametrize("content", [b"", b'{"format": 2', b"[2]", b"2", b"\xff\xfe", b'{"format": 2}\0'])
def test_what_is_no_json_object_is_damage(content: bytes) -> None:
    with pytest.raises(Damaged):
        Manifest.from_bytes(content)


def written_by(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, number: int = FORMAT, **versions: str) -> None:
    """Write the manifest of a committed checkpoint again as another trainer would."""
    found = read_manifest(checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "FORMAT", number)
        content = replace(found, versions=replace(found.versions, **versions)).to_bytes()
    (checkpoint / "manifest.json").write_bytes(content)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file, by its place."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_newer_format_ends_the_job_and_changes_nothing(open_at: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    save(open_at(), 1, 2)
    written_by(open_at.directory / "step-2", monkeypatch, NEWER, trainer="7.8.9")
    (open_at.directory / "step-3.a1.tmp").mkdir()
    (open_at.directory / "step-3.a1.tmp" / "tensors.bin").write_bytes(b"x")
    before = contents(open_at.directory)
    for start in (lambda: open_at(attempt=2), lambda: open_at(attempt=2, writer=False).newest()):
        with pytest.raises(Permanent) as refusal:
            start()
        assert refusal.value.reason is Reason.CHECKPOINT_FORMAT_UNKNOWN
        assert refusal.value.exit_code == 78
        for words in (
            "step-2 has format 2, written by trainer 7.8.9,",
            "reads format 1;",
            "at least as new as the one",
        ):
            assert words in refusal.value.message
        assert contents(open_at.directory) == before

    monkeypatch.setattr(manifest, "READABLE", READABLE | {NEWER})
    resumed = open_at(attempt=2)
    loaded = resumed.newest()
    assert loaded is not None
    assert (loaded.step, loaded.fallbacks) == (2, 0)
    save(resumed, 3)
    assert committed_steps(open_at.directory) == [1, 2, 3]


def unfenced(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files without those that say who may commit."""
    return {name: content for name, content in files.items() if not name.startswith(("fence", "execution-"))}


def test_a_damaged_checkpoint_before_one_of_a_newer_format_stays(
    open_at: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only the tensors tell of the damage, which is found after the fence was raised."""
    save(open_at(), 1, 2, 3)
    written_by(open_at.directory / "step-2", monkeypatch, NEWER)
    for file in ("tensors.bin", "manifest.json"):
        (open_at.directory / "step-3" / file).write_bytes(b"{")
        before = contents(open_at.directory)
        with pytest.raises(Permanent, match=f"format {NEWER}") as refusal:
            open_at(attempt=2).newest()
        assert refusal.value.reason is Reason.CHECKPOINT_FORMAT_UNKNOWN
        after = contents(open_at.directory)
        assert (after == before) is (file == "manifest.json")
        assert unfenced(after) == unfenced(before)


def test_a_newer_format_below_the_newest_checkpoint_is_nobodys_business(
    open_at: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(open_at(), 1, 2)
    written_by(open_at.directory / "step-1", monkeypatch, NEWER)
    loaded = open_at(attempt=2).newest()
    assert loaded is not None
    assert loaded.step == 2


def test_who_may_not_start_at_all_is_told_that_first(open_at: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    save(open_at(attempt=4), 1)
    written_by(open_at.directory / "step-1", monkeypatch, NEWER)
    with pytest.raises(Retryable, match="attempt 4 of this job has started"):
        open_at(attempt=3)
    with pytest.raises(Permanent, match="another DistillJob"):
        open_at(attempt=5, uid="other")


def test_a_resume_with_other_versions_is_told(
    open_at: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(open_at(), 1)
    assert read_manifest(open_at.directory / "step-1").versions == Versions.present(torch.__version__)
    same = open_at(attempt=2)
    assert same.newest() is not None
    assert (events(same).changes, caplog.text) == ({}, "")

    written_by(open_at.directory / "step-1", monkeypatch, torch="2.0.0", ultralytics="8.0.0")
    other, present = open_at(attempt=3), Versions.present(torch.__version__)
    assert other.newest() is not None
    assert events(other).changes == {
        "torch": ("2.0.0", present.torch),
        "ultralytics": ("8.0.0", present.ultralytics),
    }
    assert f"torch 2.0.0, now {present.torch}, ultralytics 8.0.0, now {present.ultralytics}" in caplog.text
    assert "results may differ bitwise" in caplog.text


def test_a_trainer_that_does_not_know_the_format_leaves_the_checkpoint(
    gang: Gang, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gang.start(steps=10)[0].end()[0] == 0
    volume = gang.root / "volume/fake"
    written_by(volume / "checkpoints/step-10", monkeypatch, NEWER, trainer="7.8.9")
    before = contents(volume)
    (node,) = gang.start(attempt=2, steps=20)
    code, message = node.end()

    assert (code, message.outcome, message.reason) == (78, "permanent", Reason.CHECKPOINT_FORMAT_UNKNOWN)
    assert message.reason.facts.fails_again
    assert f"step-10 has format {NEWER}, written by trainer 7.8.9," in message.message
    assert "the volume was not changed" in message.message
    assert f"error: CheckpointFormatUnknown: {message.message}" in node.log.read_text().splitlines()
    assert contents(volume) == before

    code, message = gang.start(attempt=3, steps=20, FAKE_READABLE=f"{FORMAT} {NEWER}")[0].end()
    assert (code, message.resumed_from_step, message.committed_step) == (0, 10, 20)


def test_a_job_whose_checkpoints_are_gone_does_not_begin_again(gang: Gang) -> None:
    assert gang.start(steps=10)[0].end()[0] == 0
    volume = gang.root / "volume/fake"
    shutil.move(volume, gang.root / "backup")
    code, message = gang.start(attempt=2, steps=20, DISTILL_COMMITTED_STEP="10")[0].end()

    assert (code, message.outcome, message.reason) == (78, "permanent", Reason.CHECKPOINTS_LOST)
    assert message.reason.facts.fails_again
    assert "has no checkpoints, but the job has committed step 10" in message.message
    assert not contents(volume), "nothing was changed"

    shutil.move(gang.root / "backup", volume)
    code, message = gang.start(attempt=3, steps=20, DISTILL_COMMITTED_STEP="10")[0].end()
    assert (code, message.resumed_from_step, message.committed_step) == (0, 10, 20)


def of_run(gang: Gang, step: int, run: dict[str, Any]) -> None:
    """Make a committed checkpoint one of a run with this definition."""
    path = gang.root / f"volume/fake/checkpoints/step-{step}"
    (path / "manifest.json").write_bytes(replace(read_manifest(path), run=run).to_bytes())


def test_the_report_of_an_attempt_says_what_was_corrected(gang: Gang) -> None:
    code, message = gang.start(steps=10)[0].end()
    assert (code, message.spec_changes) == (0, None)
    run = read_manifest(gang.root / "volume/fake/checkpoints/step-10").run or {}
    of_run(gang, 10, {**run, "training": {**run["training"], "lr0": 0.02}})
    (node,) = gang.start(attempt=2, steps=20)
    code, message = node.end()
    assert (code, message.resumed_from_step) == (0, 10)
    assert message.spec_changes is not None
    assert [change.to_wire() for change in message.spec_changes] == [
        {"field": "training.lr0", "checkpoint": "0.02", "attempt": "0.01"}
    ]
    assert "training.lr0 0.02, now 0.01" in node.log.read_text()

    of_run(gang, 20, {**run, "worldSize": 64})
    code, message = gang.start(attempt=3, steps=30)[0].end()
    assert (code, message.outcome, message.reason) == (78, "permanent", Reason.CHECKPOINT_MISMATCH)
    assert "worldSize 64, now 2" in message.message


@pytest.mark.parametrize("plan", [{}, {"0": {"at": 12, "do": "sigkill"}}], ids=["done", "killed"])
def test_the_report_of_an_attempt_says_which_versions_have_changed(
    gang: Gang, monkeypatch: pytest.MonkeyPatch, plan: dict[str, Any]
) -> None:
    code, message = gang.start(steps=10)[0].end()
    assert (code, message.version_changes) == (0, None)
    written_by(gang.root / "volume/fake/checkpoints/step-10", monkeypatch, torch="2.0.0")
    (node,) = gang.start(attempt=2, steps=20, plan=plan)
    _, message = node.end()

    assert message.version_changes is not None
    (change,) = message.version_changes
    assert (change.name, change.checkpoint, change.attempt) == ("torch", "2.0.0", torch.__version__)
    assert "results may differ bitwise" in node.log.read_text()
