"""The CRD in the cluster, which may be of another version than this operator."""

import time
from collections.abc import Mapping
from typing import Any

from distill_api.constants import GROUP, PLURAL, SCHEMA_HASH, VERSION
from distill_api.generate.crd import schema_hash
from distill_api.reading.unknown import Place
from distill_operator.kube.answers import ApiError
from distill_operator.kube.client import Kube
from distill_operator.kube.objects import Object

KEEP_SECONDS = 60.0
"""How long the CRD is not read again. It is read only for jobs with fields that this version does not know."""


class ClusterCrd:
    """Reads the CRD, if the operator may: a Role in a namespace cannot allow it."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._read: tuple[float, Object | None] | None = None

    async def matches(self) -> bool | None:
        """Whether the CRD has this version's schema; None if it cannot be read. Raises ApiError."""
        crd = await self._get()
        if crd is None:
            return None
        return bool((crd["metadata"].get("annotations") or {}).get(SCHEMA_HASH) == schema_hash())

    async def asked_for(self, unknown: Mapping[Place, Any]) -> tuple[str, ...]:
        """Which of these unknown fields of a spec have another value than the CRD's default. Raises ApiError.

        The API server adds the defaults of a newer CRD to every job, so a default says nothing about the user. Without
        the CRD nothing is known, and the answer is empty.
        """
        crd = await self._get() if unknown else None
        return fields_beyond_defaults(unknown, crd) if crd is not None else ()

    async def _get(self) -> Object | None:
        now = time.monotonic()
        if self._read is None or now - self._read[0] > KEEP_SECONDS:
            self._read = (now, await self._request())
        return self._read[1]

    async def _request(self) -> Object | None:
        try:
            return await self._kube.get("CustomResourceDefinition", "", f"{PLURAL}.{GROUP}")
        except ApiError as error:
            if error.code in (401, 403):
                return None
            raise


def fields_beyond_defaults(unknown: Mapping[Place, Any], crd: Object) -> tuple[str, ...]:
    """The unknown fields of a spec whose value is not the default in the CRD's schema."""
    (version,) = [version for version in crd["spec"]["versions"] if version["name"] == VERSION]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return tuple(
        ".".join(("spec", *map(str, place)))
        for place, value in unknown.items()
        if value != _default(_schema_at(spec, place))
    )


def _schema_at(schema: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
    for part in place:
        inner = schema.get("items") if isinstance(part, int) else (schema.get("properties") or {}).get(part)
        schema = inner or {}
    return schema


def _default(schema: Mapping[str, Any]) -> Any:
    """What the API server writes for a field that is not set; None if it writes nothing."""
    value = schema.get("default")
    if not isinstance(value, dict):
        return value
    inner = {name: _default(sub) for name, sub in (schema.get("properties") or {}).items()}
    return {**{name: default for name, default in inner.items() if default is not None}, **value}
