"""A container's CPU limit is read from cgroups v1 and v2, at every level."""

import os
from pathlib import Path

import pytest

from distill_trainer.process.machine.cpus import available_cpus


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")
    return root


@pytest.mark.parametrize(
    ("own", "files", "cpus"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1),
        ("0::/", {"cpu.max": "300000 100000"}, 3),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/pod/container", {"pod/cpu.max": "200000 100000", "pod/container/cpu.max": "max 100000"}, 2),
        ("0::/../elsewhere", {"cpu.max": "400000 100000"}, 4),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu,cpuacct:/pod", {"cpu/pod/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_quota_us": "500000"}, 5),
        ("7:memory:/", {"cpu/cpu.cfs_quota_us": "100000"}, 64),
        ("0::/", {"cpu.max": "10000 100000"}, 1),
        ("0::/", {}, 64),
    ],
)
def test_the_smallest_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "own").write_text(own + "\n")
    assert available_cpus(tree(tmp_path / "cgroup", files), tmp_path / "own") == cpus


def test_this_machine_has_at_least_one() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
