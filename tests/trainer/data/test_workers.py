"""Loader workers leave exactly when their trainer does, however it ends."""

import os
import pickle
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distill_api.spec.shared_memory import PREFETCH, in_flight_bytes
from distill_trainer.data import workers
from distill_trainer.data.slots import Slots
from distill_trainer.data.workers import BatchLoader, fits_shared_memory
from distill_trainer.process.liveness.heartbeat import is_alive
from tests.support.machine.processes import wait_until_gone
from tests.support.machine.python import command, environment

ONE_RANK: dict[str, Any] = {"batch_bytes": 1, "ranks_on_node": 1, "pin_memory": False}


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

    options = ONE_RANK | {"workers": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fork", fork_and_tell)
        loader = BatchLoader(Told(), [[0], [1], [2]], collate, **options)
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
    options = ONE_RANK | {"workers": 1}
    loader = BatchLoader(Broken(), [[0], [1], [2], [3]], collate, **options)
    with closing(loader), pytest.raises(RuntimeError, match="worker"):
        list(loader)


class Pid(torch.utils.data.Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return os.getpid()


@pytest.mark.parametrize("pipes", [False, True])
def test_every_iteration_uses_the_same_workers(pipes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "fits_shared_memory", lambda *_: not pipes)
    loader = BatchLoader(Pid(), [[0], [1], [2], [3]], collate, **ONE_RANK | {"workers": 2})
    with closing(loader):
        first = [batch["n"].item() for batch in loader]
        assert [batch["n"].item() for batch in loader] == first
        next(iter(loader))  # left early
        assert [batch["n"].item() for batch in loader] == first
        assert len(set(first) - {os.getpid()}) == 2
    assert not any(is_alive(pid) for pid in first)


def test_open_loaders_share_the_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    reserved: list[int] = []
    monkeypatch.setattr(workers, "fits_shared_memory", lambda *given: reserved.append(given[-1]) or True)
    first = BatchLoader(Pid(), [[0]], collate, **ONE_RANK | {"workers": 1, "batch_bytes": 1000})
    second = BatchLoader(Pid(), [[0]], collate, **ONE_RANK | {"workers": 1})
    first.close()
    third = BatchLoader(Pid(), [[0]], collate, **ONE_RANK | {"workers": 1})
    second.close()
    third.close()
    assert reserved == [0, in_flight_bytes(1000, 1, 1), in_flight_bytes(1, 1, 1)]


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
    loader = BatchLoader(Images(), pairs, stacked, **ONE_RANK | {"workers": 2, "batch_bytes": size})
    with closing(loader):
        for _ in range(2):
            kept = [batch["img"][1] for batch in loader]  # views, of which each keeps its batch
            loader_done = [int(image.float().mean()) for image in kept]
            assert loader_done == [second for _, second in pairs]
            assert all(bool((image == image[0, 0, 0]).all()) for image in kept)
        dropped = [int(batch["img"][1, 0, 0, 0]) for batch in loader]
    assert dropped == loader_done
    assert [int(image[0, 0, 0]) for image in kept] == loader_done, "batches outlive their loader"


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


@pytest.mark.parametrize(
    ("free", "fits"),
    [(64 * 2**20, False), (2 * 2**30, True)],
)
def test_shared_memory_must_hold_all_batches_under_way(
    free: int, fits: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """16 images of 640 px by 8 workers are 0.75 GiB and more; Docker's default /dev/shm is 64 MiB."""
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert fits_shared_memory(in_flight_bytes(16 * 3 * 640**2, workers=8, ranks=1)) is fits
    assert ("64 MiB free, and batches on their way need 938 MiB: they go through pipes" in caplog.text) is not fits
