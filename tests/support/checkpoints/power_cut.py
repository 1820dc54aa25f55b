"""A disk that forgets: from recorded system calls to every state in which a power cut may leave the files.

What was fsynced is there. Of what was not, a file may have nothing, a part or all of its new content, and a directory
the first few of its changes, in their order, which every journaling file system keeps; directories and files lose
theirs independently of each other.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Union

from tests.support.machine.syscalls import Call

Change = dict[str, Union["Folder", "File", None]]


@dataclass(eq=False)
class File:
    """Its content as processes see it, and as the disk has it."""

    content: bytes = b""
    durable: bytes = b""


@dataclass(eq=False)
class Folder:
    """Its entries as processes see them, and those on the disk with the changes that are not there yet."""

    entries: dict[str, "Folder | File"] = field(default_factory=dict)
    durable: dict[str, "Folder | File"] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        """One atomic change: names and what they now stand for."""
        self.changes.append(change)
        _apply(self.entries, change)


def _apply(entries: dict[str, "Folder | File"], change: Change) -> None:
    for name, node in change.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def _read(path: Path) -> "Folder | File":
    if path.is_dir():
        entries = {child.name: _read(child) for child in path.iterdir()}
        return Folder(dict(entries), dict(entries))
    return File(path.read_bytes(), path.read_bytes())


Tree = dict[str, "Tree | bytes"]


class Disk:
    """A directory, all of which is durable to begin with."""

    def __init__(self, root: Path) -> None:
        self._root = root
        found = _read(root)
        assert isinstance(found, Folder)
        self.top = found
        self._open: dict[int, Folder | File] = {}

    def see(self, call: Call) -> None:
        """Take in one call. Raises AssertionError for one that changes files in a way unknown here."""
        if call.returned < 0:
            return
        paths = [bytes.fromhex(text.replace("\\x", "")).decode(errors="replace")
                 for text in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', call.arguments)]  # fmt: skip
        numbers = [int(number) for number in re.findall(r"^(\d+)", call.arguments)]
        inside = [Path(path) for path in paths if Path(path).is_relative_to(self._root)]
        if numbers and isinstance(base := self._open.get(numbers[0]), Folder) and paths:
            self._name(call, [(base, paths[0])])  # relative to an open folder, as rmtree works
            return
        if call.name == "close":
            self._open.pop(numbers[0], None)
        elif call.name == "write" and numbers[0] in self._open:
            file = self._open[numbers[0]]
            assert isinstance(file, File)
            data = re.search(r'"((?:\\x[0-9a-f]{2})*)"', call.arguments)
            assert data is not None
            file.content += bytes.fromhex(data[1].replace("\\x", ""))[: call.returned]
        elif call.name in ("fsync", "fdatasync") and numbers[0] in self._open:
            self._sync(self._open[numbers[0]])
        elif inside:
            self._name(call, [self._parent(path) for path in inside if path != self._root])

    def _name(self, call: Call, places: list[tuple[Folder, str]]) -> None:
        if not places:
            if call.name == "openat":
                self._open[call.returned] = self.top
            return
        folder, name = places[0]
        if call.name == "openat":
            assert "O_TRUNC" not in call.arguments, call
            if "O_CREAT" in call.arguments and name not in folder.entries:
                folder.change({name: File()})
            self._open[call.returned] = folder.entries[name]
        elif call.name == "mkdir":
            folder.change({name: Folder()})
        elif call.name in ("unlink", "rmdir", "unlinkat"):
            folder.change({name: None})
        elif call.name in ("rename", "renameat2"):
            other, new = places[1]
            assert other is folder, "a rename between folders"
            node = folder.entries[name]
            swapped = folder.entries[new] if "RENAME_EXCHANGE" in call.arguments else None
            folder.change({name: swapped, new: node})
        else:
            assert call.name in ("newfstatat", "stat", "lstat", "access", "chdir", "readlink", "statfs"), call

    def _sync(self, node: "Folder | File") -> None:
        if isinstance(node, File):
            node.durable = node.content
        else:
            node.durable, node.changes = dict(node.entries), []

    def _parent(self, path: Path) -> tuple[Folder, str]:
        parent = self._find(path.parent)
        assert isinstance(parent, Folder)
        return parent, path.name

    def _find(self, path: Path) -> "Folder | File":
        node: Folder | File = self.top
        for part in path.relative_to(self._root).parts:
            assert isinstance(node, Folder)
            node = node.entries[part]
        return node

    def after_power_cut(self) -> Iterator[Tree]:
        """Every state in which the files may be found, some of them more than once."""
        folders = [folder for folder in self._folders(self.top, set()) if folder.changes]
        for kept in product(*(range(len(folder.changes) + 1) for folder in folders)):
            for share in (0.0, 0.5, 1.0):
                yield self._tree(self.top, dict(zip(map(id, folders), kept, strict=True)), share)

    def _folders(self, folder: Folder, seen: set[int]) -> Iterator[Folder]:
        if id(folder) in seen:
            return
        seen.add(id(folder))
        yield folder
        later = [node for change in folder.changes for node in change.values() if node is not None]
        for node in [*folder.durable.values(), *folder.entries.values(), *later]:
            if isinstance(node, Folder):
                yield from self._folders(node, seen)

    def _tree(self, folder: Folder, kept: dict[int, int], share: float) -> Tree:
        entries = dict(folder.durable)
        for change in folder.changes[: kept.get(id(folder), 0)]:
            _apply(entries, change)
        return {
            name: self._tree(node, kept, share) if isinstance(node, Folder) else _content(node, share)
            for name, node in entries.items()
        }


def _content(file: File, share: float) -> bytes:
    if file.content == file.durable:
        return file.content
    new = file.content[len(file.durable) :]
    return file.durable + new[: round(share * len(new))]


def materialise(tree: Tree, place: Path) -> None:
    """Make real files of a state."""
    place.mkdir()
    for name, node in tree.items():
        if isinstance(node, bytes):
            (place / name).write_bytes(node)
        else:
            materialise(node, place / name)


def frozen(tree: Tree) -> object:
    """A state as something that can be compared and hashed."""
    return tuple(sorted((name, node if isinstance(node, bytes) else frozen(node)) for name, node in tree.items()))
