"""The manifest: what a committed checkpoint consists of, with digests, so that damage is never mistaken for state."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from distill_trainer.checkpoint.format import layout

FORMAT = 1


class Damaged(Exception):
    """A checkpoint that is not what its manifest says. The text names the file and the difference."""


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 of one file of a checkpoint."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Contents of manifest.json."""

    uid: str
    attempt: int
    step: int
    time: datetime
    torch: str
    files: dict[str, FileEntry]

    def to_bytes(self) -> bytes:
        """JSON with a digest over itself."""
        body = {"format": FORMAT, **asdict(self), "time": self.time.isoformat()}
        return json.dumps({**body, "digest": _digest(body)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` wrote. Raises Damaged."""
        try:
            body: dict[str, Any] = json.loads(content)
            said = body.pop("digest")
            if said != _digest(body):
                raise Damaged(f"{layout.MANIFEST} differs from its own digest")
            if body["format"] != FORMAT:
                raise Damaged(f"{layout.MANIFEST} has format {body['format']}; this trainer reads format {FORMAT}")
            return cls(
                uid=body["uid"],
                attempt=body["attempt"],
                step=body["step"],
                time=datetime.fromisoformat(body["time"]),
                torch=body["torch"],
                files={name: FileEntry(**entry) for name, entry in body["files"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{layout.MANIFEST} cannot be read: {error}") from None


def read_manifest(checkpoint: Path) -> Manifest:
    """The manifest of a committed checkpoint. Raises Damaged, or OSError other than a missing file."""
    try:
        return Manifest.from_bytes((checkpoint / layout.MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise Damaged(f"{layout.MANIFEST} is missing") from None


def read_verified(checkpoint: Path, name: str, entry: FileEntry) -> bytearray:
    """A file's bytes, checked against its manifest entry. Raises Damaged, or OSError other than a missing file."""
    content = bytearray(entry.bytes)
    try:
        with open(checkpoint / name, "rb") as file:
            got = file.readinto(content)
            longer = file.read(1)
    except FileNotFoundError:
        raise Damaged(f"{name} is missing") from None
    if got != entry.bytes or longer:
        raise Damaged(f"{name} has {got}{'+' if longer else ''} bytes instead of {entry.bytes}")
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise Damaged(f"{name} differs from its digest")
    return content


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
