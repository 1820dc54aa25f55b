"""Carry images from the build's store to the nodes that ask for them."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testcluster import settings
from testcluster.artifacts import images
from testcluster.nodes.node import Node


def load(reference: str, nodes: Sequence[Node]) -> None:
    """Import ``reference`` into the runtimes of those ``nodes`` that have another build of it, or none.

    An image of the project's own is built first where its sources have changed, so that none is stale.
    """
    for target in images.TARGETS:
        if reference == images.reference(target):
            images.build(target)
    identity = images.identity(reference)
    if identity is None:
        raise ValueError(f"no image {reference}; the project's are {', '.join(map(images.reference, images.TARGETS))}")
    lacking = [node for node in nodes if node.loaded(reference) != identity]
    if not lacking:
        return
    # Not in /tmp, which may be a memory file system too small for a trainer's image.
    with tempfile.TemporaryDirectory(dir=settings.cache_dir(), prefix=".archive-") as temporary:
        archive = Path(temporary) / "image.tar"
        images.export(reference, archive)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.import_image(archive), lacking))
    for node in lacking:
        node.record_loaded(reference, identity)
