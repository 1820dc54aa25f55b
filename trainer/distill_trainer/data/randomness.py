"""Seeds the generators that augmentation draws from, and gives the process its own state back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info


@contextmanager
def restored() -> Iterator[None]:
    """Leave `random`, NumPy's and torch's global generators as they were, except in a loader's worker.

    A worker's generators serve nothing else. In the trainer itself (workers: 0) they do, and what is drawn from them
    there must not depend on the number of workers.
    """
    if get_worker_info() is not None:
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


def seed_all(seed: int) -> None:
    """Seed the three generators with 64 bits. CUDA's are left alone: augmentation runs on the CPU."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)
