"""Loader workers leave exactly when their trainer does, however it ends."""

import os
import pickle
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_trainer.data.loading.slots import Slots
from distill_trainer.data.loading.workers import PREFETCH, BatchLoader
from distill_trainer.process.liveness.heartbeat import is_alive
from tests.support.machine.processes import wait_until_gone
from tests.support.machine.python import command, environment


def collate(items: list[int]) -> dict[str, torch.Tensor]:
    return {"n": torch.tensor(items)}


@contextmanager
def trainer(root: Path, steps: int = -1) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    process = subprocess.Popen(
        command("tests.support.ranks.load_forever", root, 2, steps),
        env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process, [int(pid) for pid in process.stdout.readline().split()]
    finally:
        process.kill()
        process.communicate()


def test_workers_die_with_a_killed_trainer(make_digits: Any) -> None:
    with trainer(make_digits()) as (process, workers):
        assert len(workers) == 2
        process.kill()
        process.wait()
        wait_until_gone(workers, seconds=2)


@pytest.mark.parametrize("request_to_stop", [signal.SIGTERM, signal.SIGINT])
def test_workers_leave_a_request_to_stop_to_the_trainer(make_digits: Any, request_to_stop: signal.Signals) -> None:
    with trainer(make_digits()) as (process, workers):
        assert process.stdout is not None
        for pid in workers:
            os.kill(pid, request_to_stop)
        for _ in range(20 * PREFETCH):  # more than was prefetched before the signal
            assert process.stdout.readline() == ".\n"
        assert all(is_alive(pid) for pid in workers)


@pytest.mark.parametrize("request_to_stop", [signal.SIGTERM, signal.SIGINT])
def test_workers_ignore_a_request_to_stop_from_their_first_instruction(request_to_stop: signal.Signals) -> None:
    class Told(torch.utils.data.Dataset[int]):
        def __getitem__(self, index: int) -> int:
            return index

    fork = os.fork

    def fork_and_tell() -> int:
        if not (pid := fork()):
            os.kill(os.getpid(), request_to_stop)
        return pid

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fork", fork_and_tell)
        loader = BatchLoader(Told(), [[0], [1], [2]], collate, workers=2)
        with closing(loader):
            assert [batch["n"].item() for batch in loader] == [0, 1, 2]


def test_a_trainer_that_ends_by_an_exception_ends_at_once(make_digits: Any) -> None:
    with trainer(make_digits(), steps=3) as (process, workers):
        process.communicate(timeout=20)
        assert process.returncode == 3
        wait_until_gone(workers, seconds=1)


class Broken(torch.utils.data.Dataset[int]):
    def __getitem__(self, index: int) -> int:
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_killed_worker_is_an_error_and_not_a_hang() -> None:
    loader = BatchLoader(Broken(), [[0], [1], [2], [3]], collate, workers=1)
    with closing(loader), pytest.raises(RuntimeError, match="worker"):
        list(loader)


class Pid(torch.utils.data.Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return os.getpid()


def test_every_iteration_uses_the_same_workers() -> None:
    loader = BatchLoader(Pid(), [[0], [1], [2], [3]], collate, workers=2)
    with closing(loader):
        first = [batch["n"].item() for batch in loader]
        assert [batch["n"].item() for batch in loader] == first
        next(iter(loader))  # left early
        assert [batch["n"].item() for batch in loader] == first
        assert len(set(first) - {os.getpid()}) == 2
    assert not any(is_alive(pid) for pid in first)


class Images(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Image n has n in all its pixels."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"img": torch.full((3, 8, 8), index % 256, dtype=torch.uint8)}


def stacked(samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {"img": torch.stack([sample["img"] for sample in samples])}


@pytest.mark.parametrize("size", [2 * 3 * 8 * 8, 1])
def test_a_batch_that_is_kept_is_never_overwritten(size: int) -> None:
    """Also when there are more of them than slots, or none fits a slot."""
    pairs = [[2 * n, 2 * n + 1] for n in range(100)]
    loader = BatchLoader(Images(), pairs, stacked, workers=2, images_bytes=size)
    with closing(loader):
        for _ in range(2):
            kept = [batch["img"][1] for batch in loader]  # views, of which each keeps its batch
            loader_done = [int(image.float().mean()) for image in kept]
            assert loader_done == [second for _, second in pairs]
            assert all(bool((image == image[0, 0, 0]).all()) for image in kept)
        dropped = [int(batch["img"][1, 0, 0, 0]) for batch in loader]
    assert dropped == loader_done
    assert [int(image[0, 0, 0]) for image in kept] == loader_done, "batches outlive their loader"


@pytest.mark.parametrize(
    ("size", "keep", "said"),
    [
        (1, False, "epoch 7: 8 batches came through pipes, .*: 0 found no free slot, 8 did not fit one; "),
        (
            2 * 3 * 8 * 8,
            True,
            r"epoch 7: \d+ batches came through pipes, .*: [1-9]\d* found no free slot, 0 did not fit one; ",
        ),
        (2 * 3 * 8 * 8, False, "$"),
    ],
)
def test_batches_that_come_through_pipes_are_told_with_their_cause(
    size: int, keep: bool, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [[2 * n, 2 * n + 1] for n in range(40 if keep else 8)]
    loader = BatchLoader(Images(), pairs, stacked, workers=1, images_bytes=size)
    with closing(loader):
        kept = [batch if keep else None for batch in loader]
        loader.tell_piped("epoch 7")
        assert re.match(said, caplog.text.partition("WARNING")[2].partition("py:")[2].partition(" ")[2])
        caplog.clear()
        loader.tell_piped("epoch 8")
        assert caplog.text == "", "each is told once"
    assert len(kept) == len(pairs)


def test_slots_are_used_again_once_their_batch_is_dropped() -> None:
    slots = Slots(workers=2, per_worker=2, size=4)
    images = [torch.ones(4, dtype=torch.uint8)]
    first, second = slots.stack(images, 1), slots.stack(images, 1)
    assert first is not None
    assert second is not None
    assert (first.slot, second.slot) == (2, 3)
    assert slots.stack(images, 1) is None
    received: torch.Tensor = pickle.loads(pickle.dumps(first))
    view = received.view(2, 2)
    del received
    assert slots.stack(images, 1) is None
    assert view.tolist() == [[1, 1], [1, 1]]
    del view
    again = slots.stack(images, 1)
    assert again is not None
    assert again.slot == 2
    assert slots.stack([torch.ones(5, dtype=torch.uint8)], 0) is None
    assert slots.stack([torch.ones(1)], 0) is None
