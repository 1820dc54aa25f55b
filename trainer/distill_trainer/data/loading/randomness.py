"""Seeds the random number generators that augmentation uses, and restores the process's own state."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Restore the global generators of `random`, NumPy and torch on exit, except in a data loader worker.

    A worker uses its generators for nothing else. In the trainer's own process (workers: 0) training uses them, and
    results must not depend on the number of workers.
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
    """Seed the three generators with a 64-bit seed. CUDA's are not seeded: augmentation runs on the CPU."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)
