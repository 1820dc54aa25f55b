"""Reads a kubeconfig as kubectl does, and says in one line what is wrong with it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from distill_api.reading import yamltext
from distill_client.errors import Unreachable

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
LOGIN: Final = "log in to the cluster again; kubectl get ns shows whether it worked"
_ANOTHER: Final = "set KUBECONFIG, or use --kubeconfig FILE; without a cluster there is distill run"


class Context(NamedTuple):
    """Where requests go."""

    name: str
    namespace: str


def load(configuration: Any, kubeconfig: str | os.PathLike[str] | None, context: str | None) -> Context:
    """Set the configuration to a context of the file, else of KUBECONFIG, else of ~/.kube/config, else to the pod's own
    service account. Raises Unreachable.
    """
    from kubernetes import config

    loader: Any = config  # the package has no annotations for it
    # The package reads KUBECONFIG only once, when it is imported; a notebook may set it later.
    file = os.fspath(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or None
    try:
        if file is None and context is None and IN_CLUSTER.exists():
            loader.load_incluster_config(client_configuration=configuration)
            return Context("in-cluster", IN_CLUSTER.read_text().strip())
        contexts, active = loader.list_kube_config_contexts(config_file=file)
        chosen = next((entry for entry in contexts if entry["name"] == context), None) if context else active
        if chosen is None:
            names = ", ".join(entry["name"] for entry in contexts)
            raise Unreachable(f'context "{context}" does not exist', f"use one of {names}")
        with _failed_logins() as failures:
            loader.load_kube_config(file, context=chosen["name"], client_configuration=configuration)
        details = chosen.get("context") or {}
        if failures:
            raise _no_login(_plugin(loader, file, details.get("user")), failures[0])
        return Context(chosen["name"], details.get("namespace") or "default")
    except (config.ConfigException, OSError, yaml.YAMLError, TypeError, KeyError, AttributeError, ValueError) as error:
        where = file or "~/.kube/config"
        raise Unreachable(f"no cluster: cannot use the kubeconfig {where} ({_why(error)})", _ANOTHER) from None


def _why(error: Exception) -> str:
    if isinstance(error, yaml.YAMLError):
        return f"it is not a YAML file: {yamltext.problem(error)}"
    if isinstance(error, TypeError | KeyError | AttributeError | UnicodeDecodeError):  # another shape, or no text
        return "it is not a kubeconfig"
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())


class _Failures(logging.Filter):
    """Keeps what the package logs of a login that failed: it raises nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.module != "kube_config":
            return True
        self.found.append(" ".join(record.getMessage().split()))
        return False


@contextmanager
def _failed_logins() -> Iterator[list[str]]:
    """Why logins failed while the block ran; nothing is logged, and logging stays as it is."""
    failures, handler, root = _Failures(), logging.NullHandler(), logging.getLogger()
    root.addFilter(failures)
    root.addHandler(handler)  # without one, logging.error makes one that stays
    try:
        yield failures.found
    finally:
        root.removeHandler(handler)
        root.removeFilter(failures)


def _plugin(loader: Any, file: str | None, user: object) -> dict[str, Any]:
    """The login plugin of a user: command, installHint."""
    kube_config = loader.kube_config
    merged = kube_config.KubeConfigMerger(file or kube_config.KUBE_CONFIG_DEFAULT_LOCATION).config.value
    users = (entry.value for entry in merged["users"])
    return next(((entry.get("user") or {}).get("exec") or {} for entry in users if entry["name"] == user), {})


def _no_login(plugin: dict[str, Any], why: str) -> Unreachable:
    command = plugin.get("command") or "of the kubeconfig"
    if why.startswith("[Errno 2]"):
        hint = " ".join(str(plugin.get("installHint") or "").split())
        return Unreachable(f"no login: the login plugin {command} is not installed", hint or "install it, on the PATH")
    why = why.removeprefix("exec: ")
    return Unreachable(f"no login: the login plugin {command} failed ({why})", LOGIN)
