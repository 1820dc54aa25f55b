"""Loads images from the build's store into nodes."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testcluster import settings
from testcluster.artifacts import images
from testcluster.nodes.node import Node


def load(reference: str, nodes: Sequence[Node]) -> None:
    """Import ``reference`` into those ``nodes`` that do not have its current build.

    One of the project's images is built first if its sources have changed.
    """
    for target in images.TARGETS:
        if reference == images.reference(target):
            images.build(target)
    identity = images.identity(reference)
    if identity is None:
        known = ", ".join(map(images.reference, images.TARGETS))
        raise ValueError(f"there is no image {reference}; the project's images are {known}")
    outdated = [node for node in nodes if node.loaded(reference) != identity]
    if not outdated:
        return
    # Not in /tmp, which can be a memory file system that is too small for a trainer's image.
    with tempfile.TemporaryDirectory(dir=settings.cache_dir(), prefix=".archive-") as temporary:
        archive = Path(temporary) / "image.tar"
        images.export(reference, archive)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.import_image(archive), outdated))
    for node in outdated:
        node.record_loaded(reference, identity)
