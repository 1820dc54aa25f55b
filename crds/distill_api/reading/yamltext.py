"""Reads YAML of users: duplicate keys are errors, as in the API server, and errors have a line number."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class _Strict(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_all(text: str) -> list[Any]:
    """All documents of a YAML text. Raises yaml.YAMLError."""
    return list(yaml.load_all(text, _Strict))


def problem(error: yaml.YAMLError) -> str:
    """What is wrong, in one line, with the line number."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return " ".join(str(error).split())
