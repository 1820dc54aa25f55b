"""JPEGs without an end marker, as interrupted writes and some cameras leave them. OpenCV decodes a completed copy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START, _END = b"\xff\xd8", b"\xff\xd9"


@contextmanager
def completed(image: str) -> Iterator[str]:
    """A copy of a JPEG, with an end marker, in the temporary directory."""
    with tempfile.NamedTemporaryFile(suffix=Path(image).suffix) as copy:
        copy.write(Path(image).read_bytes() + _END)
        copy.flush()
        yield copy.name


def lacks_end_marker(image: str) -> bool:
    """Whether the file is a JPEG without an end marker; False if it cannot be read."""
    try:
        with open(image, "rb") as file:
            if file.read(len(_START)) != _START:
                return False
            file.seek(-len(_END), os.SEEK_END)
            return file.read() != _END
    except OSError:  # for the reader to tell
        return False
