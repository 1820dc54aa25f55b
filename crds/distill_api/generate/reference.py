"""docs/distilljob.md, generated from the contract: `python -m distill_api.generate.reference > docs/distilljob.md`."""

import json
import sys
from collections.abc import Iterator
from typing import Any

from distill_api.generate.crd import Schema, crd
from distill_api.spec.distillation import DISTILLATION, UNTIL
from distill_api.spec.inherit import INHERIT
from distill_api.spec.rules import across, corrections
from distill_api.spec.rules.corrections import DEFINING, LATER, STARTED
from distill_api.spec.rules.exit_codes import EXIT_CODES
from distill_api.spec.volumes import SOURCE_VOLUME, VOLUME

_LISTED = 12
"""Longer lists of words are those of reasons."""
_UNLIMITED = 2**53 - 1
"""A bound of this size is no limit to tell."""
_HEAD = """\
# DistillJob

Every field, generated from the contract by `make generate`; do not edit. `kubectl explain dj.spec --recursive` has the
same. [quickstart.md](quickstart.md) has a job to start from.

A job is `apiVersion: distilljob.dev/v1alpha1`, `kind: DistillJob`, with a `metadata.name` of at most 52 lower case
letters, digits and -, a letter first. A field that is not here is refused.

"""
_CHANGES = """\
## When a field may change

| in the column *may change* | means |
|---|---|
| always | at any time; what concerns the pods applies from the next attempt |
| suspended | while the job is suspended, also after steps were committed |
| uncommitted | while the job is suspended and has not committed a step |
| unstarted | while `suspend` is true, before the first attempt |

Suspended means: `spec.suspend` is true and the phase is Suspended, or the job has never started. The change may set
`suspend` to false at the same time. What a change does to a run, and how the trainer checks it again: [corrections of a
suspended job](fault-tolerance.md#corrections-of-a-suspended-job). `distill apply --diff` says it for a file.

"""
_NOTES = {
    "nodes": "; always with elastic, up to status.fullNodes",
    "training.epochs": "; after a commit to more only",
    "volumes.claimTemplate": "; never once a claim was created from it",
}
_RULES = """\
## Rules between fields

What the API server, `distill validate` and `distill run` refuse, in their words:

"""
_LATER_RULES = """\

What the API server refuses when a job is changed:

"""


def document() -> str:
    """The page."""
    (version,) = crd()["spec"]["versions"]
    job = version["schema"]["openAPIV3Schema"]["properties"]
    told = [
        *across.SPEC,
        *VOLUME,
        *SOURCE_VOLUME,
        *across.RESOURCES,
        *across.SCHEDULING,
        *INHERIT,
        *DISTILLATION,
        *UNTIL,
        *EXIT_CODES,
    ]
    listed = "".join(f"- {rule.message}\n" for rule in told)
    changes = "".join(f"- {rule.message}\n" for rule in corrections.JOB)
    spec, status = "\n".join(_sections(job["spec"], "spec")), "\n".join(_sections(job["status"], "status"))
    return f"{_HEAD}{_CHANGES}{spec}\n{status}\n{_RULES}{listed}{_LATER_RULES}{changes}"


def may_change(field: str) -> str:
    """When a field of spec, such as training.epochs, may change: a word of the page's first table."""
    top, _, rest = field.partition(".")
    if top in STARTED:
        return "unstarted"
    if top not in DEFINING:
        return "always"
    later = (top == "training" and rest in LATER) or field == "accelerators.resource"
    return "suspended" if later else "uncommitted"


def _sections(schema: Schema, root: str) -> Iterator[str]:
    """The root's own fields, then a section for each object in it."""
    properties = schema["properties"]
    sections = {name: part for name, part in properties.items() if _fields(part) and name != "template"}
    flat = {name: part for name, part in properties.items() if name not in sections}
    yield f"## {root}\n\n{_links(root, sections)}\n"
    yield _table(flat, schema, root, "")
    for name, part in sections.items():
        place = f"{root}.{name}"
        needed = " Required." if name in schema.get("required", ()) else ""
        yield f"### {place}\n\n{_text(part)}{needed}{' A list.' if 'items' in part else ''}\n"
        yield _table(_fields(part), part.get("items", part), root, f"{name}.")


def _links(root: str, sections: dict[str, Schema]) -> str:
    links = ", ".join(f"[{name}](#{f'{root}{name}'.lower()})" for name in sections)
    return f"Its objects have a table each: {links}. Its other fields:"


def _table(fields: dict[str, Schema], parent: Schema, root: str, prefix: str) -> str:
    head = "| field | type | default | may change | what |\n|---|---|---|---|---|\n"
    if root == "status":
        head = "| field | type | what |\n|---|---|---|\n"
    return head + "".join(_rows(fields, parent, root, prefix, ""))


def _rows(fields: dict[str, Schema], parent: Schema, root: str, prefix: str, below: str) -> Iterator[str]:
    for name, part in fields.items():
        inner = _fields(part) if f"{prefix}{below}{name}" != "template" else {}
        shown = f"`{below}{name}`"
        if root == "status":
            yield f"| {shown} | {_type(part)} | {_cell(_text(part))} |\n"
        else:
            default = "required" if name in parent.get("required", ()) else _default(part, inner)
            yield f"| {shown} | {_type(part)} | {default} | {_when(prefix + below + name)} | {_cell(_text(part))} |\n"
        mark = "[]." if "items" in part else "."
        yield from _rows(inner, part.get("items", part), root, prefix, f"{below}{name}{mark}")


def _when(field: str) -> str:
    top, name = field.partition(".")[0], field.rpartition(".")[2]
    place = "volumes.claimTemplate" if (top, name) == ("volumes", "claimTemplate") else field
    return may_change(field) + _NOTES.get(place, "")


def _fields(part: Schema) -> dict[str, Schema]:
    found: dict[str, Schema] = part.get("items", part).get("properties", {})
    return found


def _type(part: Schema) -> str:
    if len(part.get("enum", ())) > _LISTED:
        return "a [reason](reasons.md)"
    if "enum" in part:
        return "one of " + ", ".join(f"`{_word(word)}`" for word in part["enum"])
    if "items" in part:
        return f"list of: {_type(part['items'])}"
    if part.get("x-kubernetes-int-or-string"):
        word = part.get("pattern", "").strip("^$")
        return f"integer{_bounds(part)}, or `{word}`" if word.isalpha() else "quantity"
    if "additionalProperties" in part:
        return f"map of: {_type(part['additionalProperties'])}"
    form = "time" if part.get("format") == "date-time" else str(part.get("type", "object"))
    return form + _bounds(part)


def _bounds(part: Schema) -> str:
    bounds = (("minimum", "exclusiveMinimum", "≥", ">"), ("maximum", "exclusiveMaximum", "≤", "<"))
    said = [
        f"{without if part.get(exclusive) else sign} {part[name]:.15g}"
        for name, exclusive, sign, without in bounds
        if abs(part.get(name, _UNLIMITED)) < _UNLIMITED
    ]
    return f" {', '.join(said)}".replace("<", "&lt;").replace(">", "&gt;") if said else ""


def _default(part: Schema, inner: dict[str, Schema]) -> str:
    if inner or part.get("default") is None:
        return "–"
    return f"`{_word(part['default'])}`"


def _word(value: Any) -> str:
    """A value as in YAML."""
    return value if isinstance(value, str) else json.dumps(value)


def _text(part: Schema) -> str:
    text = part.get("description", "")
    return text if isinstance(text, str) else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def main() -> None:
    """Write the page to standard output."""
    sys.stdout.write(document())


if __name__ == "__main__":
    main()
