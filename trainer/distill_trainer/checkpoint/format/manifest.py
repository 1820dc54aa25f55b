"""The manifest: what a committed checkpoint consists of, with digests, so that damage is never mistaken for state."""

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

Every format has a manifest.json that is a JSON object with an integer `format`, so that older trainers recognise it.
Keys that older trainers may ignore are added without a new number. A new number needs a golden checkpoint.
"""
READABLE: Final = frozenset({1})
"""Formats that this trainer reads."""


class Damaged(Exception):
    """A checkpoint that is not what its manifest says. The text names the file and the difference."""


class UnknownFormat(Exception):
    """A checkpoint of a format that this trainer does not read, most likely of a newer trainer: no damage."""

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
    """What has written the checkpoint."""
    files: dict[str, FileEntry]

    def to_bytes(self) -> bytes:
        """JSON with a digest over itself."""
        fields = {**asdict(self), "time": self.time.isoformat()}
        body = {"format": FORMAT, **fields.pop("versions"), **fields}
        return json.dumps({**body, "digest": _digest(body)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` of this trainer or an older one wrote. Raises Damaged or UnknownFormat."""
        try:
            body: dict[str, Any] = json.loads(content)
            said = body.pop("digest", None)
            _check_format(body, said)
            if said != _digest(body):
                raise Damaged(f"{layout.MANIFEST} differs from its own digest")
            return cls(
                uid=body["uid"],
                attempt=body["attempt"],
                step=body["step"],
                time=datetime.fromisoformat(body["time"]),
                versions=Versions(body["torch"], body.get("ultralytics"), body.get("trainer")),
                files={name: FileEntry(**entry) for name, entry in body["files"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{layout.MANIFEST} cannot be read: {error}") from None


def _check_format(body: dict[str, Any], said: object) -> None:
    """Raise UnknownFormat for a manifest of another format, whatever else it consists of.

    A digest that holds proves the number. Otherwise a number above those that are known is believed: a newer format may
    have another digest, and to refuse changes nothing, while damage is renamed. It is not believed where the digest
    holds with a known number in its place: then only the number is damaged.
    """
    found = body["format"]
    intact = said == _digest(body)
    newer = type(found) is int and found > max(READABLE)
    misread = any(said == _digest({**body, "format": known}) for known in READABLE)
    if (intact and found not in READABLE) or (newer and not misread):
        trainer = body.get("trainer")
        raise UnknownFormat(found, trainer if isinstance(trainer, str) else None)


def read_manifest(checkpoint: Path) -> Manifest:
    """The manifest of a committed checkpoint. Raises Damaged, UnknownFormat, or OSError other than a missing file."""
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
