"""Packs the pause image, whose container holds a pod's namespaces, without an image tool."""

import hashlib
import io
import json
import tarfile
from pathlib import Path


def pack(binary: Path, reference: str, archive: Path) -> None:
    """Write a docker-archive whose only file and entry point is ``binary``."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        add_file(files, "pause", binary.read_bytes(), mode=0o755)
    content = layer.getvalue()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as files:
        add_file(files, "layer.tar", content)
        add_file(files, "config.json", json.dumps(config).encode())
        add_file(files, "manifest.json", json.dumps(manifest).encode())


def add_file(files: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    """Add a file with this content to an archive."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    files.addfile(member, io.BytesIO(content))
