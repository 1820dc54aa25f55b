"""Loads images from the build's store into nodes."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testcluster.artifacts import images
from testcluster.artifacts.stored import StoredImage
from testcluster.nodes.node import Node


def load(reference: str, nodes: Sequence[Node]) -> None:
    """Add ``reference`` to those ``nodes`` that do not have its current build.

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
    image = StoredImage.of(reference)
    with tempfile.TemporaryDirectory() as temporary:
        description = Path(temporary) / "image.tar"
        image.describe(description)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.add_image(image, description), outdated))
    for node in outdated:
        node.record_loaded(reference, identity)
