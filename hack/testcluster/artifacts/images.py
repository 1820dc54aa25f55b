"""Builds the project's images from its Dockerfile with buildah, on a base image made from Debian packages."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from testcluster import settings
from testcluster.artifacts import binaries
from testcluster.linux.processes import run

_LABEL = "dev.distilljob.inputs"
_SOURCES = {
    "operator": ("crds/distill_api", "operator/distill_operator"),
    "trainer": ("crds/distill_api", "trainer/distill_trainer"),
}
_SHARED = (
    ".dockerignore",
    "Dockerfile",
    "constraints.txt",
    "images/requirements.py",
    "overrides.txt",
    "pyproject.toml",
)
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
TARGETS = ("base", *_SOURCES)


def reference(target: str) -> str:
    return f"distill-{target}:dev"


def build(target: str, report: Callable[[str], None] = print) -> str:
    """Build the image of ``target``, unless it was already built from the same inputs; returns its reference."""
    if target not in TARGETS:
        raise ValueError(f"there is no image {target!r}; use one of {', '.join(TARGETS)}")
    inputs = input_digest(target)
    if _label(target) == inputs:
        report(f"{reference(target)} is up to date")
    elif target == "base":
        report(f"building {reference(target)} …")
        _build_base(inputs)
    else:
        build("base", report)
        report(f"building {reference(target)} …")
        _build_target(target, inputs)
    return reference(target)


def export(image: str, archive: Path) -> None:
    """Write an image to an uncompressed Docker archive."""
    buildah("push", _stored(image), f"docker-archive:{archive}:{image}")


def identity(image: str) -> str | None:
    """Image ID of ``image``; None if it is not in the store."""
    ids = buildah("images", "--quiet", "--no-trunc", "--filter", f"reference={_stored(image)}").split()
    return ids[0] if ids else None


def store() -> Path:
    """The root of buildah's store, whose layers are folders."""
    return settings.cache_dir() / "images" / "root"


def inspect(image: str) -> dict[str, Any]:
    """What buildah knows of an image in its store."""
    found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", _stored(image)))
    return found


def input_digest(target: str) -> str:
    """Digest of everything that goes into the image."""
    if target == "base":
        return binaries.root_file_system().parent.name
    digest = hashlib.sha256(input_digest("base").encode())
    for file in _input_files(target):
        digest.update(f"{file.relative_to(settings.CHECKOUT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _input_files(target: str) -> Iterator[Path]:
    yield from (settings.CHECKOUT / name for name in _SHARED)
    for source in _SOURCES[target]:
        files = (settings.CHECKOUT / source).rglob("*")
        yield from sorted(file for file in files if file.is_file() and "__pycache__" not in file.parts)


def _build_base(inputs: str) -> None:
    binaries.ensure([binaries.BASE])
    container = buildah("from", "scratch").strip()
    try:
        buildah("add", "--quiet", container, str(binaries.root_file_system()), "/")
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        buildah("config", "--env", f"PATH={path}", "--label", f"{_LABEL}={inputs}", "--cmd", "python3", container)
        buildah("commit", "--quiet", container, _stored(reference("base")))
    finally:
        buildah("rm", container)


def _build_target(target: str, inputs: str) -> None:
    cache = Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache" / "uv")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        mounts = {cache: "/var/cache/uv:rw"} | _host_configuration(Path(temporary))
        buildah(
            "bud",
            "--layers",
            "--isolation=chroot",
            "--network=host",
            f"--target={target}",
            f"--build-arg=BASE={_stored(reference('base'))}",
            "--build-arg=UV_NO_CACHE=0",
            *(f"--volume={source}:{place}" for source, place in mounts.items()),
            f"--label={_LABEL}={inputs}",
            f"--tag={_stored(reference(target))}",
            str(settings.CHECKOUT),
        )
    _remove_replaced()


def _host_configuration(directory: Path) -> dict[Path, str]:
    """Files with the host's package registry settings, mounted only during the build."""
    uv = Path(os.environ.get("UV_CONFIG_FILE") or Path.home() / ".config" / "uv" / "uv.toml")
    pip = Path(os.environ.get("PIP_CONFIG_FILE") or Path.home() / ".config" / "pip" / "pip.conf")
    if not uv.exists():
        uv = directory / "uv.toml"
        uv.write_text("native-tls = true\n")
    files = {_CERTIFICATES: str(_CERTIFICATES), Path("/etc/pip.conf"): "/etc/pip.conf", uv: "/etc/uv/uv.toml"}
    files[pip] = "/etc/xdg/pip/pip.conf"
    return {source: f"{place}:ro" for source, place in files.items() if source.exists()}


def _label(target: str) -> str | None:
    """Input digest of the image in the store."""
    if identity(reference(target)) is None:
        return None
    return (inspect(reference(target))["OCIv1"]["config"].get("Labels") or {}).get(_LABEL)


def _remove_replaced() -> None:
    """Remove layers that no image uses, which for a trainer are gigabytes."""
    buildah("rmi", "--prune")


def _stored(image: str) -> str:
    """buildah's name of a locally built image. Kubernetes would take a name without a host as Docker Hub's."""
    return f"localhost/{image}"


def buildah(*arguments: str) -> str:
    """Run buildah with a separate store, independent of the machine's other images and settings."""
    folder = store().parent
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "containers.conf"
    configuration.write_text(f'[network]\nnetwork_config_dir = "{folder}/networks"\n')  # by default /etc/cni
    options = [f"--root={store()}", f"--runroot={folder / 'run'}", "--storage-driver=overlay"]
    options.append("--storage-opt=overlay.skip_mount_home=true")  # leaves no mount behind
    environment = f"CONTAINERS_CONF={configuration}"
    return run("env", environment, "nice", "buildah", *options, *arguments, timeout=1800)
