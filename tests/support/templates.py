"""Pod templates that are refused, one for each rule, with the message; and templates that are not."""

from typing import Any

from distill_api.constants import RESERVED_ENV
from distill_api.spec.rules import pod_template

Template = dict[str, Any]

_VALUES: dict[str, Any] = {
    "terminationGracePeriodSeconds": 5,
    "automountServiceAccountToken": True,
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "hostNetwork": True,
    "hostPID": True,
    "hostIPC": True,
    "ephemeralContainers": [{"name": "debug", "image": "busybox"}],
    "restartPolicyRules": [{"action": "Restart"}],
}
"""Of fields that are no strings."""


def _pod(**spec: Any) -> Template:
    return {"spec": spec}


def _variable(name: str, kind: str = "containers", container: str = "trainer") -> Template:
    return _pod(**{kind: [{"name": container, "image": "x", "env": [{"name": name, "value": "1"}]}]})


def _projected(**source: Any) -> Template:
    return _pod(volumes=[{"name": "token", "projected": {"sources": [{"configMap": {"name": "a"}}, source]}}])


REFUSED: dict[str, tuple[Template, str]] = {
    **{
        f"field {field}": (_pod(**{field: _VALUES.get(field, "x")}), f"template.spec.{field} {why}")
        for field, why in pod_template.OWNED_POD_FIELDS.items()
    },
    **{
        f"trainer's {field}": (
            _pod(containers=[{"name": "trainer", field: _VALUES.get(field, "x")}]),
            f"{field} of the container trainer is set by the operator; remove it: {why}",
        )
        for field, why in pod_template.OWNED_TRAINER_FIELDS.items()
    },
    **{
        f"variable {name}": (_variable(name), "belongs to torchrun or the operator")
        for name in (*sorted(RESERVED_ENV), "DISTILL_ANYTHING", "TORCHELASTIC_RUN_ID")
    },
    "variable of an init container": (_variable("RANK", "initContainers", "fetch"), "belongs to torchrun"),
    "variable of a sidecar": (_variable("RANK", container="logs"), "belongs to torchrun"),
    "init container named trainer": (
        _pod(initContainers=[{"name": "trainer", "image": "x"}]),
        "give this init container another one",
    ),
    **{
        f"volume {name}": (_pod(volumes=[{"name": name, "emptyDir": {}}]), "give yours another name")
        for name in pod_template.OWNED_VOLUMES
    },
    "token in a volume": (
        _projected(serviceAccountToken={"path": "token"}),
        "serviceAccountToken would give the pod an API token",
    ),
    "certificate in a volume": (
        _projected(podCertificate={"signerName": "a/b", "keyType": "ED25519"}),
        "podCertificate would give the pod a certificate",
    ),
}
"""By name: the template, and what is said about it."""

ALLOWED: dict[str, Template] = {
    "larger shared memory": _pod(volumes=[{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}]),
    "own volume": _pod(volumes=[{"name": "cache", "emptyDir": {}}]),
    "projected secret": _projected(secret={"name": "a"}),
    "user namespace": _pod(hostUsers=False),
    "sidecar's termination message": _pod(containers=[{"name": "logs", "image": "x", "terminationMessagePath": "/x"}]),
    "variables": _variable("NCCL_DEBUG"),
    "variables of a ConfigMap": _pod(containers=[{"name": "trainer", "envFrom": [{"configMapRef": {"name": "nccl"}}]}]),
    "init container": _pod(initContainers=[{"name": "fetch", "image": "x", "env": [{"name": "URL", "value": "y"}]}]),
    "command and mount": _pod(
        containers=[
            {
                "name": "trainer",
                "command": ["python"],
                "volumeMounts": [{"name": "venv", "mountPath": "/workspace"}],
            }
        ],
        volumes=[{"name": "venv", "persistentVolumeClaim": {"claimName": "venv"}}],
    ),
}
"""By name: a template that only Kubernetes checks further."""
