"""A label file: a header and flat arrays in one file that any number of processes map. It holds no code.

magic · SHA-256 of all that follows · length of the header · header (JSON) · arrays, aligned to 64 bytes
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"distill labels 1"
_START = struct.Struct(f"<{len(_MAGIC)}s32sQ")
_DIGEST_FROM = _START.size - 8
"""The digest covers all that stands behind it."""
_ALIGNMENT = 64


class Damaged(Exception):
    """The file is no complete label file of this format."""


def encode(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The contents of a label file with this header, of JSON values, and these arrays."""
    places: dict[str, tuple[str, tuple[int, ...], int]] = {}
    offset = 0
    for name, array in arrays.items():
        places[name] = array.dtype.str, array.shape, offset
        offset = _aligned(offset + array.nbytes)
    text = json.dumps({"header": header, "arrays": places}).encode()
    text = text.ljust(_aligned(_START.size + len(text)) - _START.size)
    parts = [struct.pack("<Q", len(text)), text]
    for array in arrays.values():
        parts += [np.ascontiguousarray(array).tobytes(), bytes(_aligned(array.nbytes) - array.nbytes)]
    digest = sha256()
    for part in parts:
        digest.update(part)
    return b"".join([_MAGIC, digest.digest(), *parts])


def read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a label file. The arrays are read-only and mapped: all processes of a node share them.

    Raises Damaged if it is not intact, and OSError.
    """
    with open(path, "rb") as file:
        start = file.read(_START.size)
        if len(start) < _START.size or not start.startswith(_MAGIC):
            raise Damaged("it has another format")
        file.seek(_DIGEST_FROM)  # a file that is read, unlike one that is mapped, fails with an error
        if file_digest(file, "sha256").digest() != start[len(_MAGIC) : _DIGEST_FROM]:
            raise Damaged("its digest does not hold")
        # A private mapping shares memory too as long as nothing is written, and more file systems have it.
        memory = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    _, _, length = _START.unpack(start)
    content = json.loads(memory[_START.size : _START.size + length])
    body = _START.size + length
    arrays = {
        name: np.frombuffer(memory, dtype, int(np.prod(shape, dtype=np.int64)), body + offset).reshape(shape)
        for name, (dtype, shape, offset) in content["arrays"].items()
    }
    return content["header"], arrays


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
