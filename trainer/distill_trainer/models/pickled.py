"""Which classes a .pt file wants, read from its pickle's opcodes: nothing is created and nothing is run."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import IO

import torch

_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_LEGACY_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"
_LEGACY_PICKLES = 4
"""Pickles at the front of torch's older format: magic number, protocol, system, and what was saved."""
_STRINGS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_PUTS = frozenset({"BINPUT", "LONG_BINPUT", "PUT"})
_GETS = frozenset({"BINGET", "LONG_BINGET", "GET"})
_OF_MODELS = re.compile(
    r"torch\.(nn|_utils|_tensor|storage)\.|torch\.(Size|device|\w+Storage|b?float\d+|u?int\d+)$|ultralytics\.(nn|utils)\."
    r"|collections\.OrderedDict$|numpy\.(_?core\.|dtype$)|pathlib\.|(builtins|__builtin__)\.set$"
)


def refused_class(error: BaseException) -> str | None:
    """The class that torch's restricted unpickler says it has refused; None when it says something else."""
    found = _REFUSED_GLOBAL.search(str(error))
    return found[1] if found else None


def foreign_classes(path: Path) -> list[str]:
    """Classes and functions of a .pt file that loading it safely has refused, sorted; call it after that.

    Of torch's older format, and of opcodes that torch's reader does not know, all that are no usual parts of a model.
    Empty where no pickle can be read.
    """
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (ValueError, RuntimeError, EOFError, AssertionError, UnpicklingError):
        return sorted({name for name in _globals(path) if not is_of_models(name)})


def is_of_models(name: str) -> bool:
    """Whether a class is a usual part of a model, as far as its name tells."""
    return _OF_MODELS.match(name) is not None


def is_pickle(path: Path) -> bool:
    """Whether torch has written the file, as a zip or in its older format. Raises OSError."""
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
    except (ValueError, zipfile.BadZipFile):  # where a damaged file ends to be a pickle
        return


def _globals_of_one(file: IO[bytes]) -> Iterator[str]:
    """Names that a pickle's opcodes put together: in one opcode, or of the last two strings on its stack."""
    memo: dict[int, str | None] = {}
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
