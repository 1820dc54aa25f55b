"""The API server's audit log: which rights a user's requests used, and which it lacked."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Entry = dict[str, Any]
_DECISION = "authorization.k8s.io/decision"


class Right(NamedTuple):
    """What one verb in a rule allows."""

    group: str
    resource: str
    """With its subresource, if it has one: resource/subresource."""
    verb: str
    name: str = ""
    """The only object that the rule is for; empty for any."""


def requests(log: Path, user: str) -> list[Entry]:
    """Every decision about a request of the user so far, oldest first. `log` is the file that is being written; those
    that were full before are beside it.
    """
    full = sorted(log.parent.glob(f"{log.stem}-*{log.suffix}"))
    return [entry for file in (*full, log) for entry in _decisions(file, user)]


def _decisions(file: Path, user: str) -> Iterator[Entry]:
    with file.open() as lines:
        for line in lines:
            if user not in line or not line.endswith("\n"):  # the last line may still be being written
                continue
            entry = json.loads(line)
            if entry["user"]["username"] == user and _DECISION in entry.get("annotations", {}):
                yield entry


def used(entries: Iterable[Entry]) -> set[Right]:
    """The rights without which these requests would have been denied; without object names."""
    return {_right(entry) for entry in entries if entry["annotations"][_DECISION] == "allow" and "objectRef" in entry}


def denied(entries: Iterable[Entry]) -> list[Right]:
    """What was asked for and not allowed. A quota or another admission plugin that refuses something is no denial."""
    return sorted({_right(entry) for entry in entries if entry["annotations"][_DECISION] == "forbid"})


def _right(entry: Entry) -> Right:
    about = entry.get("objectRef", {})
    resource = "/".join(filter(None, (about.get("resource", entry["requestURI"]), about.get("subresource"))))
    return Right(about.get("apiGroup", ""), resource, entry["verb"])


def given(roles: Iterable[dict[str, Any]]) -> set[Right]:
    """Every right in the rules of these Roles and ClusterRoles."""
    return {
        Right(group, resource, verb, name)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }
