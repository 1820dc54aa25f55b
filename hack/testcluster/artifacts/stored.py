"""An image in buildah's store, as a container runtime that shares its files needs it."""

import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from testcluster.artifacts import images
from testcluster.artifacts.pauseimage import add_file


@dataclass(frozen=True)
class Layer:
    """A layer: its files as overlayfs has them, and the name of the stack up to it."""

    files: Path
    chain_id: str


@dataclass(frozen=True)
class StoredImage:
    """An image of the store."""

    reference: str
    manifest: str
    config: str
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, reference: str) -> "StoredImage":
        """The image that is stored under this reference."""
        found = images.inspect(reference)
        stored = json.loads((images.store() / "overlay-layers" / "layers.json").read_text())
        files = {layer["diff-digest"]: images.store() / "overlay" / layer["id"] / "diff" for layer in stored}
        diffs = found["OCIv1"]["rootfs"]["diff_ids"]
        layers = (Layer(files[diff], chain) for diff, chain in zip(diffs, chain_ids(diffs), strict=True))
        return cls(reference, found["Manifest"], found["Config"], tuple(layers))

    @property
    def config_digest(self) -> str:
        return _digest(self.config)

    def describe(self, archive: Path) -> None:
        """Write an OCI archive with all of the image but its layers."""
        name = {"io.containerd.image.name": f"docker.io/library/{self.reference}"}  # Kubernetes' name of it
        media_type = json.loads(self.manifest)["mediaType"]
        manifest = {"mediaType": media_type, "digest": _digest(self.manifest), "size": len(self.manifest.encode())}
        files = {
            "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}),
            "index.json": json.dumps({"schemaVersion": 2, "manifests": [{**manifest, "annotations": name}]}),
        } | {f"blobs/{_digest(blob).replace(':', '/')}": blob for blob in (self.manifest, self.config)}
        with tarfile.open(archive, "w") as tar:
            for path, content in files.items():
                add_file(tar, path, content.encode())


def chain_ids(diff_ids: list[str]) -> list[str]:
    """OCI's names of the stacks of layers: of the first alone, of the first two, and so on."""
    chain = diff_ids[:1]
    for diff in diff_ids[1:]:
        chain.append(_digest(f"{chain[-1]} {diff}"))
    return chain


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
