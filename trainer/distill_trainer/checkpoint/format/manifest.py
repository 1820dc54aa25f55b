"""The manifest of a checkpoint: its files with their digests, so that damage is always detected."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.format.versions import Versions, trainer_version

FORMAT: Final = 1
"""Format of the checkpoints that this trainer writes.

Every format must have a manifest.json with a JSON object that has an integer `format`, so that older trainers can
recognize it. Keys that older trainers may ignore need no new number. A new number needs a golden checkpoint.
"""
READABLE: Final = frozenset({1})
"""Formats that this trainer can read."""


class Damaged(Exception):
    """A checkpoint does not match its manifest. The message names the file and the difference."""


class UnknownFormat(Exception):
    """A checkpoint has a format that this trainer cannot read, probably because a newer trainer wrote it."""

    def __init__(self, found: object, trainer: str | None) -> None:
        written = f", written by trainer {trainer}," if trainer else ""
        known = " and ".join(map(str, sorted(READABLE)))
        ours = trainer_version() or "of an unknown version"
        super().__init__(f"has format {found}{written} and this trainer ({ours}) reads format {known}")


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
    versions: Versions
    """Versions that wrote the checkpoint."""
    files: dict[str, FileEntry]
    run: dict[str, Any] | None = None
    """The definition of the run (`rules.corrections`); None if the trainer that wrote it recorded none."""

    def to_bytes(self) -> bytes:
        """JSON that includes its own digest."""
        fields = {**asdict(self), "time": self.time.isoformat()}
        fields |= {"run": self.run} if fields.pop("run") is not None else {}
        body = {"format": FORMAT, **fields.pop("versions"), **fields}
        return json.dumps({**body, "digest": _digest(body)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Parse a manifest that this or an older trainer wrote. Raises Damaged or UnknownFormat."""
        try:
            body: dict[str, Any] = json.loads(content)
            digest = body.pop("digest", None)
            _check_format(body, digest)
            if digest != _digest(body):
                raise Damaged(f"{layout.MANIFEST} does not match its own digest")
            return cls(
                uid=body["uid"],
                attempt=body["attempt"],
                step=body["step"],
                time=datetime.fromisoformat(body["time"]),
                versions=Versions(body["torch"], body.get("ultralytics"), body.get("trainer")),
                files={name: FileEntry(**entry) for name, entry in body["files"].items()},
                run=_run(body.get("run")),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{layout.MANIFEST} cannot be read: {error}") from None


def _run(found: object) -> dict[str, Any] | None:
    if found is not None and not isinstance(found, dict):
        raise TypeError("run is no mapping")
    return found


def _check_format(body: dict[str, Any], digest: object) -> None:
    """Raise UnknownFormat for a manifest of another format.

    If the digest matches, the format number is right. If not, a number above the known ones is still taken as an
    unknown format: a newer format may compute its digest differently, and refusing changes nothing, while a damaged
    checkpoint is renamed. The exception is a digest that matches with a known number: then only the number is damaged.
    """
    found = body["format"]
    intact = digest == _digest(body)
    newer = type(found) is int and found > max(READABLE)
    number_damaged = any(digest == _digest({**body, "format": known}) for known in READABLE)
    if (intact and found not in READABLE) or (newer and not number_damaged):
        trainer = body.get("trainer")
        raise UnknownFormat(found, trainer if isinstance(trainer, str) else None)


def read_manifest(checkpoint: Path) -> Manifest:
    """Read a checkpoint's manifest. Raises Damaged (also if it is missing), UnknownFormat or OSError."""
    try:
        return Manifest.from_bytes((checkpoint / layout.MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise Damaged(f"{layout.MANIFEST} is missing") from None


def read_verified(checkpoint: Path, name: str, entry: FileEntry) -> bytearray:
    """Read a checkpoint's file and verify its size and digest. Raises Damaged (also if it is missing) or OSError."""
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
        raise Damaged(f"{name} does not match its digest")
    return content


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
