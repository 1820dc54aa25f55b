"""Stops Ultralytics from downloading, installing, sending telemetry and writing outside the scratch directory.

Ultralytics reads these variables when it is imported, so `distill_trainer/__init__.py` sets them first. They do not
prevent every download (such as a missing Ultralytics asset), so a rank also blocks the connections themselves.
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
"""Programs that Ultralytics uses to download or install."""
_HOST = socket.gethostname()
_SHELLS = frozenset({"sh", "bash"})


@dataclass(frozen=True)
class SavedEnvironment:
    """The environment variables before `prepare` changed them."""

    environ: MutableMapping[str, str]
    before: Mapping[str, str]
    ultralytics_was_loaded: bool

    def restore(self) -> None:
        """Restore the variables, unless this process has imported Ultralytics since `prepare`."""
        if "ultralytics" in sys.modules and not self.ultralytics_was_loaded:
            return
        for name in _VARIABLES:
            self.environ.pop(name, None)
        self.environ.update(self.before)


def prepare(environ: MutableMapping[str, str] = os.environ) -> SavedEnvironment:
    """Set the variables that make importing ultralytics free of side effects. Idempotent.

    YOLO_CONFIG_DIR is kept if the user set it. Otherwise each rank gets its own directory in the scratch directory,
    because Ultralytics rewrites its settings file without locking it against other processes.
    """
    before = {name: environ[name] for name in _VARIABLES if name in environ}
    scratch = scratch_directory()
    user_directory = environ.get("YOLO_CONFIG_DIR")
    if user_directory is None or Path(user_directory).parent == scratch:
        directory = scratch / f"rank-{environ.get('RANK', 'none')}"
        directory.mkdir(exist_ok=True)
        environ["YOLO_CONFIG_DIR"] = str(directory)
    environ.setdefault("MPLCONFIGDIR", environ["YOLO_CONFIG_DIR"])
    environ["YOLO_OFFLINE"] = "true"  # also switches its usage events off
    environ["YOLO_AUTOINSTALL"] = "false"
    environ["ULTRALYTICS_SAFE_LOAD"] = "true"
    environ.setdefault("YOLO_VERBOSE", "false")
    return SavedEnvironment(environ, before, "ultralytics" in sys.modules)


def scratch_directory() -> Path:
    """This user's private directory below the temporary directory (mode 0700).

    Raises PermissionError if another user created it: files in it are trusted.
    """
    directory = Path(tempfile.gettempdir()) / f"distill-trainer-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{directory} belongs to another user; remove it, or set TMPDIR to a directory that you own"
        )
    directory.chmod(0o700)
    return directory


def stay_offline(allowed_host: str = "") -> None:
    """Block connections to other hosts than `allowed_host`, and programs that download or install.

    Applies to Python code in this process and in processes forked from it, which get PermissionError. Collectives do
    not connect through Python and keep working. Cannot be undone. This guards against mistakes; it is not a sandbox.
    """
    sys.addaudithook(partial(_block, allowed_host))


def _block(allowed_host: str, event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):  # a Unix socket's address is a path
        host = _text(arguments[1][0])
        if not _is_local(host) and host != allowed_host:
            raise PermissionError(f"the trainer is offline: connection to {host} blocked")
    elif event == "socket.getaddrinfo":
        host = _text(arguments[0])
        if _address(host) is None and not _is_local(host) and host != allowed_host:
            raise PermissionError(f"the trainer is offline: name lookup of {host} blocked")
    elif event == "subprocess.Popen" and isinstance(arguments[1], Sequence) and _installs(arguments[0], arguments[1]):
        raise PermissionError(f"the trainer is offline: {arguments[1]} was not run, because it downloads or installs")


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
