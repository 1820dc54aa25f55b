"""Lists the classes that a .pt file loads by reading its pickle's opcodes, without running them."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch

_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_LEGACY_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"
_LEGACY_PICKLES = 4
"""Pickles at the start of torch's legacy format: magic number, protocol, system info, and the saved object."""
_STRINGS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_PUTS = frozenset({"BINPUT", "LONG_BINPUT", "PUT"})
_GETS = frozenset({"BINGET", "LONG_BINGET", "GET"})
_OF_MODELS = re.compile(
    r"torch\.(nn|_utils|_tensor|storage)\.|torch\.(Size|device|\w+Storage|b?float\d+|u?int\d+)$|ultralytics\.(nn|utils)\."
    r"|collections\.OrderedDict$|numpy\.(_?core\.|dtype$)|pathlib\.|(builtins|__builtin__)\.set$"
)


def refused_class(error: BaseException) -> str | None:
    """The class named in the error of torch's restricted unpickler; None if the error has another cause."""
    found = _REFUSED_GLOBAL.search(str(error))
    return found[1] if found else None


def foreign_classes(path: Path) -> list[str]:
    """Classes and functions that prevent a .pt file from being loaded safely, sorted. Call this after loading failed.

    For torch's legacy format and for opcodes that torch cannot read: all that are not usual parts of a model. Empty if
    the file has no readable pickle.
    """
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (ValueError, RuntimeError, EOFError, AssertionError, UnpicklingError):
        return sorted({name for name in _globals(path) if not is_model_class(name)})


def is_model_class(name: str) -> bool:
    """Whether a class is a usual part of a model, judged by its name."""
    return _OF_MODELS.match(name) is not None


def is_pickle(path: Path) -> bool:
    """Whether the file has torch's format: a zip, or the legacy format. Raises OSError."""
    with path.open("rb") as file:
        return _LEGACY_MAGIC in file.read(32) or zipfile.is_zipfile(path)


def _globals(path: Path) -> Iterator[str]:
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                for _ in range(_LEGACY_PICKLES):
                    yield from _globals_of_one(file)
        else:
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if member.endswith("data.pkl"):
                        yield from _globals_of_one(io.BytesIO(archive.read(member)))
    except (ValueError, zipfile.BadZipFile):  # the file is damaged from here on
        return


def _globals_of_one(file: IO[bytes]) -> Iterator[str]:
    """Names of the globals that a pickle loads: in one opcode, or from the last two strings on the stack."""
    memo: dict[Any, str | None] = {}
    pushed: list[str | None] = [None, None]
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(map(str, pushed[-2:]))
        if opcode.name == "MEMOIZE":
            memo[len(memo)] = pushed[-1]
        elif opcode.name in _PUTS:
            memo[argument] = pushed[-1]
        elif opcode.name in _GETS:
            pushed = [pushed[-1], memo.get(argument)]
        elif opcode.stack_after:
            pushed = [pushed[-1], str(argument) if opcode.name in _STRINGS else None]
