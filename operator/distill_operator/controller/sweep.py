"""Finds jobs that were deleted while no watch was open: a watch that starts again tells of what is there, not of what
is gone.
"""

import asyncio
import logging
from collections.abc import Callable

from distill_api.constants import KIND
from distill_operator.kube.answers import ApiError
from distill_operator.kube.client import Kube
from distill_operator.kube.pod_cache import Key

LOG = logging.getLogger(__name__)

SWEEP_SECONDS = 600.0
"""How long the series of a deleted job may stay in the metrics."""


async def sweep(kube: Kube, known: Callable[[], set[Key]], wake: Callable[[Key], None]) -> None:
    """Wake every known job that is gone, again and again; its pass forgets it. Never returns."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        for key in await _gone(kube, known()):
            wake(key)


async def _gone(kube: Kube, known: set[Key]) -> set[Key]:
    gone = set()
    for namespace in {namespace for namespace, _ in known}:
        try:
            jobs = await kube.list(KIND, namespace)
        except ApiError as error:  # the next sweep sees it
            LOG.info("the jobs of namespace %s cannot be listed: %s", namespace, error)
            continue
        present = {(namespace, job["metadata"]["name"]) for job in jobs}
        gone |= {key for key in known if key[0] == namespace} - present
    return gone
