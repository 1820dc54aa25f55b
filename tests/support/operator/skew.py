"""What another version makes of an object: a newer one adds fields and words, an older CRD drops fields."""

from typing import Any

Object = dict[str, Any]
WORDS = {".status.phase", ".status.waiting.reason", ".status.attempts[].reason", ".status.attempts[].outcome"}
"""Fields of which newer versions may have further words."""


def newer(value: Any, schema: Object, path: str = "") -> Any:
    """The object with a new field at every place of `spec` and `status` that has fields, and with a new condition."""
    if isinstance(value, list) and "items" in schema:
        grown = [newer(item, schema["items"], f"{path}[]") for item in value]
        if path == ".status.conditions":
            grown.append({**value[0], "type": "Newer", "reason": "NewReason"})
        return grown
    if not isinstance(value, dict) or "properties" not in schema or path.startswith((".metadata", ".spec.template")):
        return value
    grown = {name: newer(item, schema["properties"].get(name, {}), f"{path}.{name}") for name, item in value.items()}
    return {**grown, "newField": {"since": 2}} if path else grown


def with_new_words(value: Any, path: str = "") -> Any:
    """The object with words that no version has, in place of every reason, outcome and phase that it has."""
    if isinstance(value, list):
        return [with_new_words(item, f"{path}[]") for item in value]
    if isinstance(value, dict):
        return {name: with_new_words(item, f"{path}.{name}") for name, item in value.items()}
    return "Newer" if path in WORDS else value


def pruned(value: Any, schema: Object) -> Any:
    """The object as an API server with this schema stores it."""
    if isinstance(value, list) and "items" in schema:
        return [pruned(item, schema["items"]) for item in value]
    known = schema.get("properties")
    if not isinstance(value, dict) or known is None or "x-kubernetes-preserve-unknown-fields" in schema:
        return value
    return {name: pruned(item, known[name]) for name, item in value.items() if name in known}
