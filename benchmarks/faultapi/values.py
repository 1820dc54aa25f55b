"""Random changes of a spec, drawn from the CRD's schema: values in, at and beyond its bounds."""

import random
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

NUMBERS = (-(2**31), -1, 0, 1, 2, 7, 60, 1000, 2**31 - 1, 2**31, 2**53, 10**18)
FREE = 5
"""How much more often than a field that never changes another one is drawn."""
STRINGS = (
    "",
    "a",
    "auto",
    "None",
    "yolo26n.pt",
    "../up",
    "/abs",
    "UPPER",
    "with space",
    "ü",
    "a/b:c@d",
    "-x",
    "ab" * 32,
)
POD_SPECS: tuple[Any, ...] = (
    {"runtimeClassName": "none-such"},
    {"containers": [{"name": "trainer", "env": [{"name": "A", "value": "b"}]}]},
    {"containers": [{"name": "trainer", "env": [{"name": "A", "value": 1}]}]},
    {"containers": [{"name": "trainer", "resources": {"limits": {"memory": "much"}}}]},
    {"containers": [{"name": "trainer", "image": ""}]},
    {"containers": [{"name": "Side Car", "image": "x"}]},
    {"containers": [{"name": "side", "image": "x"}, {"name": "side", "image": "y"}]},
    {"containers": [{}]},
    {"containers": None},
    {"volumes": [{"name": "shm", "emptyDir": {}}, {"name": "more", "hostPath": {"path": "/"}}]},
    {"volumes": [{"name": "checkpoints", "emptyDir": {}}]},
    {"volumes": [{"emptyDir": {}}]},
    {"affinity": {"podAffinity": 3}},
    {"securityContext": {"fsGroup": "many"}},
    {"initContainers": [{"name": "first", "image": "x", "command": ["true"]}]},
    {"unknownField": {"deep": [1, {"a": None}]}},
    {"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}},
)
TOLERATIONS: tuple[Any, ...] = (
    {"key": "a", "operator": "Exists"},
    {"key": "a", "operator": "Maybe"},
    {"tolerationSeconds": "soon"},
    {},
)


class Values:
    """Draws changes of a spec with this schema."""

    def __init__(self, schema: Schema, seed: int) -> None:
        self._schema = schema
        rules = " ".join(rule["rule"] for rule in schema.get("x-kubernetes-validations") or ())
        fixed = {name for name in schema["properties"] if f"self.{name} == oldSelf.{name}" in rules}
        self._names = [name for name in schema["properties"] for _ in range(1 if name in fixed else FREE)]
        self.random = random.Random(seed)

    def change(self) -> dict[str, Any]:
        """A merge patch of one to three fields of the spec."""
        changed: dict[str, Any] = {}
        for _ in range(self.random.choice((1, 1, 2, 3))):
            name = self.random.choice(self._names)
            changed[name] = self._changed(self._schema["properties"][name], required=name in self._required())
        return changed

    def _required(self) -> list[str]:
        return list(self._schema.get("required") or ())

    def _changed(self, schema: Schema, *, required: bool) -> Any:
        """A merge patch of a value: null removes a field, and some fields of an object stay."""
        if self.random.random() < (0.02 if required else 0.12):
            return None
        properties = schema.get("properties")
        if properties and not schema.get("x-kubernetes-preserve-unknown-fields") and self.random.random() < 0.8:
            names = self.random.sample(list(properties), k=self.random.randint(1, min(2, len(properties))))
            return {name: self._changed(properties[name], required=False) for name in names}
        return self._value(schema)

    def _value(self, schema: Schema) -> Any:
        draw = self.random
        if draw.random() < 0.04:  # of another type
            return draw.choice(("7", 1.5, True, [], {}, [None], {"a": 1}))
        if "default" in schema and draw.random() < 0.1:
            return schema["default"]
        if "enum" in schema and draw.random() < 0.9:
            return draw.choice(schema["enum"])
        if schema.get("x-kubernetes-int-or-string"):
            return draw.choice((self._number(schema), "auto", "10", "10%"))
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            return draw.choice(POD_SPECS if "properties" in schema else TOLERATIONS)
        kind = schema.get("type")
        if kind == "boolean":
            return draw.random() < 0.5
        if kind == "integer":
            return self._number(schema)
        if kind == "number":
            return draw.choice((float(self._number(schema)), draw.uniform(-1, 2), 1e-300, 1e300))
        if kind == "string":
            return self._string(schema)
        return self._many(schema)

    def _number(self, schema: Schema) -> int:
        bounds = [int(schema[name]) for name in ("minimum", "maximum") if name in schema]
        near = [bound + delta for bound in bounds for delta in (-1, 0, 1)]
        return self.random.choice([*near, *near, *NUMBERS, self.random.randint(0, 100)])

    def _string(self, schema: Schema) -> str:
        longest = schema.get("maxLength", 300)
        return self.random.choice((*STRINGS, "x" * longest, "x" * (longest + 1)))

    def _many(self, schema: Schema) -> Any:
        """An array or an object."""
        draw = self.random
        if schema.get("type") == "array":
            most = schema.get("maxItems", 3)
            count = draw.choice((0, 1, 1, 2, most, most + 1) if most <= 20 else (0, 1, 1, 2, 3))
            return [self._value(schema.get("items") or {"type": "string"}) for _ in range(count)]
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            return {draw.choice((*STRINGS, "k", "a.b/c")): self._value(more) for _ in range(draw.randint(0, 3))}
        properties = schema.get("properties") or {}
        kept = [name for name in properties if name in (schema.get("required") or ()) or draw.random() < 0.4]
        return {name: self._value(properties[name]) for name in kept}
