"""Keeps Ultralytics to itself: no downloads, no pip, no telemetry, no files outside the scratch directory.

Ultralytics reads these variables when it is imported, so `distill_trainer/__init__.py` sets them first. They do not
keep it from everything (an asset of its own that is missing), so a rank also refuses the connection itself.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_VARIABLES = (
    "YOLO_CONFIG_DIR",
    "MPLCONFIGDIR",
    "YOLO_OFFLINE",
    "YOLO_AUTOINSTALL",
    "ULTRALYTICS_SAFE_LOAD",
    "YOLO_VERBOSE",
)
_INSTALLERS = frozenset({"pip", "pip3", "uv", "apt", "apt-get", "conda", "curl", "wget", "git"})
"""Programs that Ultralytics would fetch something with."""
_HOST = socket.gethostname()
_SHELLS = frozenset({"sh", "bash"})


@dataclass(frozen=True)
class Settings:
    """The environment as it was before `prepare`."""

    environ: MutableMapping[str, str]
    before: Mapping[str, str]
    ultralytics_was_loaded: bool

    def restore(self) -> None:
        """Take the variables back, unless an Ultralytics that has read them is in this process."""
        if "ultralytics" in sys.modules and not self.ultralytics_was_loaded:
            return
        for name in _VARIABLES:
            self.environ.pop(name, None)
        self.environ.update(self.before)


def prepare(environ: MutableMapping[str, str] = os.environ) -> Settings:
    """Set the variables that make an import of ultralytics free of side effects. Idempotent.

    A settings directory that the user chose is kept. Otherwise each rank gets its own below the scratch directory,
    because Ultralytics rewrites its settings file without a lock that spans processes.
    """
    before = {name: environ[name] for name in _VARIABLES if name in environ}
    ours = scratch_directory()
    chosen = environ.get("YOLO_CONFIG_DIR")
    if chosen is None or Path(chosen).parent == ours:
        directory = ours / f"rank-{environ.get('RANK', 'none')}"
        directory.mkdir(exist_ok=True)
        environ["YOLO_CONFIG_DIR"] = str(directory)
    environ.setdefault("MPLCONFIGDIR", environ["YOLO_CONFIG_DIR"])
    environ["YOLO_OFFLINE"] = "true"  # also switches its usage events off
    environ["YOLO_AUTOINSTALL"] = "false"
    environ["ULTRALYTICS_SAFE_LOAD"] = "true"
    environ.setdefault("YOLO_VERBOSE", "false")
    return Settings(environ, before, "ultralytics" in sys.modules)


def scratch_directory() -> Path:
    """This user's own directory below the temporary one; nobody else can write it.

    Raises PermissionError when another user made it first: what lies there is trusted.
    """
    directory = Path(tempfile.gettempdir()) / f"distill-trainer-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{directory} belongs to another user; remove it, or set TMPDIR to a directory of your own"
        )
    directory.chmod(0o700)
    return directory


def stay_offline(but: str = "") -> None:
    """From now on Python code of this process, and of those forked from it, connects to no other machine than `but`,
    and starts no program that installs or fetches something: both fail with PermissionError. Collectives are not
    Python's and not concerned.

    It cannot be taken back, and is a guard against mistakes, not a sandbox.
    """
    sys.addaudithook(partial(_refuse, but))


def _refuse(but: str, event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):  # a Unix socket's address is a path
        host = _text(arguments[1][0])
        if not _is_local(host) and host != but:
            raise PermissionError(f"the trainer stays offline: no connection to {host}")
    elif event == "socket.getaddrinfo":
        host = _text(arguments[0])
        if _address(host) is None and not _is_local(host) and host != but:
            raise PermissionError(f"the trainer stays offline: {host} is not looked up")
    elif event == "subprocess.Popen" and isinstance(arguments[1], Sequence) and _installs(arguments[0], arguments[1]):
        raise PermissionError(f"the trainer installs and fetches nothing: {arguments[1]} was not run")


def _text(host: object) -> str:
    return host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _is_local(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address is not None else host in ("", "localhost", _HOST)


def _installs(program: object, command: Sequence[object]) -> bool:
    words = command.split() if isinstance(command, str) else [str(word) for word in command]
    if words and Path(words[0]).name in _SHELLS and "-c" in words[:-1]:
        words = words[words.index("-c") + 1].split()
    names = {Path(word).name for word in (str(program), *words[:1])}
    return bool(names & _INSTALLERS) or "-m pip" in " ".join(words[:4])
