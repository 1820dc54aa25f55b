"""How an image of the build's store gets into a node: what the runtime is told of it, and links instead of copies."""

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from testcluster import settings
from testcluster.artifacts.stored import Layer, StoredImage, chain_ids
from testcluster.linux.processes import ProcessTable
from testcluster.nodes.node import Node

MANIFEST = json.dumps({"mediaType": "application/vnd.oci.image.manifest.v1+json"})
CONFIG = json.dumps({"os": "linux"})


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def image(tmp_path: Path) -> StoredImage:
    """Two layers, each a folder with a file."""
    layers = []
    for name in ("below", "above"):
        (tmp_path / name / "etc").mkdir(parents=True)
        (tmp_path / name / "etc" / name).write_text(name)
        layers.append(Layer(tmp_path / name, f"chain-{name}"))
    return StoredImage("distill-base:dev", MANIFEST, CONFIG, tuple(layers))


def test_a_stack_of_layers_is_named_by_all_of_them() -> None:
    two = digest(b"sha256:a sha256:b")
    assert chain_ids(["sha256:a", "sha256:b", "sha256:c"]) == ["sha256:a", two, digest(f"{two} sha256:c".encode())]


def test_the_description_holds_all_but_the_layers(image: StoredImage, tmp_path: Path) -> None:
    image.describe(tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as archive:
        files = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"] == {"io.containerd.image.name": "docker.io/library/distill-base:dev"}
    blobs = {name for name in files if name.startswith("blobs/")}
    assert blobs == {f"blobs/{digest(content.encode()).replace(':', '/')}" for content in (MANIFEST, CONFIG)}
    assert files[f"blobs/{entry['digest'].replace(':', '/')}"] == MANIFEST.encode()
    assert entry["size"] == len(MANIFEST)


def test_files_of_layers_are_linked_and_a_layer_that_is_there_stays(
    image: StoredImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, ...]] = []
    place = tmp_path / "snapshot"
    place.mkdir()

    def runtime(_: Node, *arguments: str) -> str:
        told.append(arguments)
        mount = {"Source": "overlay", "Options": ["index=off", f"upperdir={place}", "lowerdir=/nowhere"]}
        return {"ls": "KEY PARENT KIND\nchain-below  Committed\n", "prepare": json.dumps([mount])}.get(arguments[1], "")

    monkeypatch.setattr(Node, "_ctr", runtime)
    Node(settings.NodeAddresses(0), tmp_path, ProcessTable(tmp_path)).add_image(image, tmp_path / "image.tar")
    assert (place / "etc" / "above").samefile(tmp_path / "above" / "etc" / "above")
    (_, prepare, commit, imported, label, *rest) = told
    active = prepare[-2]
    assert prepare == ("snapshots", "prepare", "--mounts", active, "chain-below")
    assert commit == ("snapshots", "commit", "chain-above", active)
    assert imported == ("images", "import", "--no-unpack", str(tmp_path / "image.tar"))
    assert label == ("content", "label", digest(CONFIG.encode()), "containerd.io/gc.ref.snapshot.overlayfs=chain-above")
    assert [words[2] for words in rest] == ["chain-below", "chain-above"], "the runtime may remove them with the image"
