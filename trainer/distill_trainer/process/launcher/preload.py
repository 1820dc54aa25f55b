"""Imports modules in the launcher, so that torchrun's agent and all forked ranks share them."""

import importlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

AGENT = (
    "torch.distributed.elastic.agent.server.local_elastic_agent",
    "torch.distributed.elastic.rendezvous.static_tcp_rendezvous",
)
COMPILER = ("torch._dynamo", "torch._inductor.config")
"""Modules that optimizers, DDP and torch.use_deterministic_algorithms import on first use. They record the available
devices on import, so they are preloaded only for training on CPUs.
"""
_HIDDEN = {"CUDA_VISIBLE_DEVICES": "", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


def preload(modules: Iterable[str]) -> None:
    """Import modules without initializing CUDA: forked processes cannot use CUDA if their parent initialized it."""
    with _without_devices():
        for module in modules:
            importlib.import_module(module)


@contextmanager
def _without_devices() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _HIDDEN}
    os.environ.update(_HIDDEN)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
