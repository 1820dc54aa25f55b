"""Data sets of real digits for the trainer's tests, made once per session by the example's own generator."""

from collections.abc import Callable
from pathlib import Path

import pytest

MakeDigits = Callable[..., Path]


@pytest.fixture(scope="session")
def make_digits(tmp_path_factory: pytest.TempPathFactory) -> MakeDigits:
    """make_digits(task, train=…, val=…, imgsz=…) -> folder with digits.yaml; the same arguments, the same folder."""
    from digits.generate import generate

    made: dict[tuple[str, int, int, int], Path] = {}

    def make(task: str = "detect", *, train: int = 24, val: int = 8, imgsz: int = 96) -> Path:
        key = (task, train, val, imgsz)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"digits-{task}")
            generate(made[key], task, {"train": train, "val": val}, imgsz, seed=0)
        return made[key]

    return make
