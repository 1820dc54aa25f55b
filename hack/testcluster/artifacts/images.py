"""Build the project's images from its Dockerfile with buildah, on a base made from Debian's packages."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

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
    """Make the image of ``target`` unless it is there already from the same inputs; returns its reference."""
    if target not in TARGETS:
        raise ValueError(f"no image {target!r}; there are {', '.join(TARGETS)}")
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
    """Write an image of the store as a Docker archive, uncompressed: it is read once, on the same machine."""
    buildah("push", _stored(image), f"docker-archive:{archive}:{image}")


def identity(image: str) -> str | None:
    """What tells this build of ``image`` from any other; None when the store has no such image."""
    ids = buildah("images", "--quiet", "--no-trunc", "--filter", f"reference={_stored(image)}").split()
    return ids[0] if ids else None


def input_digest(target: str) -> str:
    """Changes when anything changes that goes into the image."""
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
    """How the host reaches its package registry, for the build to do likewise without leaving it in the image."""
    uv = Path(os.environ.get("UV_CONFIG_FILE") or Path.home() / ".config" / "uv" / "uv.toml")
    pip = Path(os.environ.get("PIP_CONFIG_FILE") or Path.home() / ".config" / "pip" / "pip.conf")
    if not uv.exists():
        uv = directory / "uv.toml"
        uv.write_text("native-tls = true\n")
    files = {_CERTIFICATES: str(_CERTIFICATES), Path("/etc/pip.conf"): "/etc/pip.conf", uv: "/etc/uv/uv.toml"}
    files[pip] = "/etc/xdg/pip/pip.conf"
    return {source: f"{place}:ro" for source, place in files.items() if source.exists()}


def _label(target: str) -> str | None:
    """The inputs of the image that the store holds."""
    if identity(reference(target)) is None:
        return None
    found = json.loads(buildah("inspect", "--type", "image", _stored(reference(target))))
    return (found["OCIv1"]["config"].get("Labels") or {}).get(_LABEL)


def _remove_replaced() -> None:
    """Layers that no image needs any more, which for a trainer are gigabytes; those still cached stay."""
    buildah("rmi", "--prune")


def _stored(image: str) -> str:
    """buildah's name of a locally built image; Kubernetes takes one without a host for Docker Hub's."""
    return f"localhost/{image}"


def buildah(*arguments: str) -> str:
    """Run buildah on a store of its own, so that the machine's other images and settings do not matter."""
    store = settings.cache_dir() / "images"
    store.mkdir(parents=True, exist_ok=True)
    configuration = store / "containers.conf"
    configuration.write_text(f'[network]\nnetwork_config_dir = "{store}/networks"\n')  # else it writes to /etc/cni
    options = [f"--root={store / 'root'}", f"--runroot={store / 'run'}", "--storage-driver=overlay"]
    options.append("--storage-opt=overlay.skip_mount_home=true")  # leaves no mount behind
    environment = f"CONTAINERS_CONF={configuration}"
    return run("env", environment, "nice", "buildah", *options, *arguments, timeout=1800)
