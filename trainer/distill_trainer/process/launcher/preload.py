"""What the launcher imports, once, for torchrun's agent and for the ranks that are forked afterwards."""

import importlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

AGENT = (
    "torch.distributed.elastic.agent.server.local_elastic_agent",
    "torch.distributed.elastic.rendezvous.static_tcp_rendezvous",
)
COMPILER = ("torch._dynamo", "torch._inductor.config")
"""What optimizers, DDP and torch.use_deterministic_algorithms import when they are first used. It notes which devices
there are, so only ranks that train on CPUs inherit it.
"""
_HIDDEN = {"CUDA_VISIBLE_DEVICES": "", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


def preload(modules: Iterable[str]) -> None:
    """Import modules. Whatever one of them asks PyTorch, the CUDA driver is not started: once it is, no process that
    is forked from this one can use CUDA.
    """
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
