"""Reads a .pt file without running anything of it: its objects become inert stand-ins, and only tensors are real.

A pickle says which classes and functions to call with which arguments, and that alone can start a download, allocate
gigabytes or replace a method. Here every name that it asks for is a stand-in that keeps what it is given.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from distill_trainer.models.loading.pickled import is_model_class


class Refused(pickle.UnpicklingError):
    """The pickle asks for something that no model needs; `name` is its full name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"GLOBAL {name}")
        self.name = name


class StandIn:
    """Stands for an object of the class `full_name`: keeps its state, and does nothing."""

    full_name: ClassVar[str] = ""

    def __init__(self, *_arguments: Any, **_keywords: Any) -> None:
        pass

    def __new__(cls, *_arguments: Any, **_keywords: Any) -> StandIn:
        made = super().__new__(cls)
        object.__setattr__(made, "state", {})
        return made

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2:  # (attributes, slots)
            state = state[0]
        object.__setattr__(self, "state", dict(state) if isinstance(state, Mapping) else {})

    def __setitem__(self, key: Any, value: Any) -> None:
        """Of a class that is derived from dict."""

    def append(self, value: Any) -> None:
        """Of a class that is derived from list."""

    def extend(self, values: Any) -> None:
        """Of a class that is derived from list."""

    def add(self, value: Any) -> None:
        """Of a class that is derived from set."""

    def get(self, name: str) -> Any:
        """An attribute of the object; None if it has none."""
        return self.state.get(name)  # type: ignore[attr-defined]


@cache
def _stand_in(full_name: str) -> type[StandIn]:
    return type(full_name.rpartition(".")[2], (StandIn,), {"full_name": full_name})


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage; torch checks that it is inside. Hooks and gradients are dropped."""
    return torch._utils._rebuild_tensor(storage, offset, size, stride)


_REAL: Final[Mapping[str, Any]] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    **{f"torch.{name}": found for name in dir(torch) if isinstance(found := getattr(torch, name), torch.dtype)},
}
"""What is not replaced: containers, number formats, and what makes a tensor of a storage."""

_HARMLESS: Final = frozenset({"builtins.getattr", "__builtin__.getattr"})
"""Not parts of a model, but in the pickles of fused ones, whose layers hold methods of themselves."""


class _Unpickler(pickle._Unpickler):
    """In Python: the one in C allocates a table as long as the largest number that the pickle gives an object."""

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name in _REAL:
            return _REAL[full_name]
        if not is_model_class(full_name) and full_name not in _HARMLESS:
            raise Refused(full_name)
        return _stand_in(full_name)


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_PICKLE: Final = SimpleNamespace(__name__="pickle", Unpickler=_Unpickler, load=_load)


def read(content: bytes) -> Any:
    """What torch.save wrote, with stand-ins. Raises Refused, and what torch raises for damaged files."""
    load: Callable[..., Any] = torch.load
    return load(io.BytesIO(content), map_location="cpu", pickle_module=_PICKLE, weights_only=False)
