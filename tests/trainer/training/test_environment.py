"""The device of a rank."""

import pytest
import torch

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_trainer.training.parallel.environment import from_torchrun


def test_without_a_device_the_drivers_own_words_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("The NVIDIA driver on your system\nis too old (found version 11040).")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", fail)
    with pytest.raises(Permanent) as refused:
        from_torchrun(uses_cuda=True, environ={})
    assert refused.value.reason is Reason.NO_ACCELERATOR
    assert "the container has 0 CUDA devices (The NVIDIA driver on your system is too old" in refused.value.message


def test_fewer_devices_than_ranks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    ranks = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    with pytest.raises(Permanent, match="rank 1 needs CUDA device 1, but the container has 1 CUDA devices; check"):
        from_torchrun(uses_cuda=True, environ=ranks)
