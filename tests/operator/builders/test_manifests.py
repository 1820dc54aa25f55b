"""Each manifest as a whole: what the operator creates is written here to the last field."""

import json
from dataclasses import replace
from typing import Any

import pytest

from distill_api.constants import TRAINER_USER, Env
from distill_api.job import DistillJob
from distill_api.logs import FORMAT_VARIABLE
from distill_api.pod.run import RunConfig
from distill_operator.builders import build_claim, build_job, build_service
from distill_operator.builders.template import merged
from tests.support.operator.samples import SETTINGS, UID, job

OWNER = {
    "apiVersion": "distilljob.dev/v1alpha1",
    "kind": "DistillJob",
    "name": "tiny",
    "uid": UID,
    "controller": True,
    "blockOwnerDeletion": True,
}
LABELS = {
    "app.kubernetes.io/name": "distilljob",
    "app.kubernetes.io/managed-by": "distill-operator",
    "app.kubernetes.io/component": "trainer",
    "distilljob.dev/job": "tiny",
    "distilljob.dev/uid": UID,
}
ATTEMPT_LABELS = {**LABELS, "distilljob.dev/attempt": "3"}
CONTAINER: dict[str, Any] = {
    "name": "trainer",
    "image": "trainer:1",
    "env": [
        {"name": "DISTILL_RUN"},
        {"name": "DISTILL_PARENT", "value": ""},
        {
            "name": "DISTILL_ATTEMPT",
            "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['distilljob.dev/attempt']"}},
        },
        {
            "name": "DISTILL_COMMITTED_STEP",
            "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['distilljob.dev/committed-step']"}},
        },
        {"name": "HOME", "value": "/tmp"},
        {"name": "USER", "value": "trainer"},
    ],
    "ports": [{"name": "metrics", "containerPort": 9400, "protocol": "TCP"}],
    "resources": {"requests": {"cpu": "2500m", "memory": "4422Mi"}, "limits": {"nvidia.com/gpu": "1"}},
    "readinessProbe": {
        "httpGet": {"path": "/healthz", "port": 9400},
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    },
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
    "volumeMounts": [
        {"name": "checkpoints", "mountPath": "/checkpoints"},
        {"name": "data", "mountPath": "/data", "readOnly": True},
        {"name": "checkpoints", "mountPath": "/models", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
    ],
}
POD_SPEC: dict[str, Any] = {
    "restartPolicy": "Never",
    "subdomain": "tiny-a3",
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "terminationGracePeriodSeconds": 60,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": TRAINER_USER,
        "runAsGroup": TRAINER_USER,
        "fsGroup": TRAINER_USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "affinity": {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "labelSelector": {"matchLabels": {"batch.kubernetes.io/job-name": "tiny-a3"}},
                    "topologyKey": "kubernetes.io/hostname",
                }
            ]
        }
    },
    "containers": [CONTAINER],
    "volumes": [
        {"name": "checkpoints", "persistentVolumeClaim": {"claimName": "runs"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "digits"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
    ],
}


def gang_job(of: DistillJob) -> dict[str, Any]:
    return build_job(of, "team", 3, of.spec.nodes, SETTINGS)


def test_secrets_for_the_images_are_the_pods() -> None:
    template = {"spec": {"imagePullSecrets": [{"name": "b"}, {"name": "c"}]}}
    made = gang_job(job(imagePullSecrets=[{"name": "a"}, {"name": "b"}], template=template))
    pod = made["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    assert "imagePullSecrets" not in pod["containers"][0]["env"][0]["value"], "an older trainer would refuse it"


def test_the_job_of_an_attempt() -> None:
    manifest = gang_job(job())
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    run = container["env"][0].pop("value")
    assert manifest == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "tiny-a3",
            "namespace": "team",
            "labels": ATTEMPT_LABELS,
            "ownerReferences": [OWNER],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": 2,
            "parallelism": 2,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": "trainer", "operator": "In", "values": [78]},
                    },
                ]
            },
            "template": {
                "metadata": {"labels": {**ATTEMPT_LABELS, "distilljob.dev/committed-step": "0"}},
                "spec": POD_SPEC,
            },
        },
    }
    told = json.loads(run)
    assert {key: told[key] for key in ("job", "uid", "attempt", "nodes", "rendezvous")} == {
        "job": "tiny",
        "uid": UID,
        "attempt": 3,
        "nodes": 2,
        "rendezvous": "tiny-a3-0.tiny-a3.team.svc:29400",
    }
    assert RunConfig.model_validate_json(run).spec == job().spec
    assert "training" not in told["spec"], "an older trainer need not know what has its default"


def test_the_service_of_an_attempt() -> None:
    assert build_service(job(), "team", 3) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "tiny-a3",
            "namespace": "team",
            "labels": ATTEMPT_LABELS,
            "ownerReferences": [OWNER],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": "tiny-a3"},
            "ports": [
                {"name": "rendezvous", "port": 29400, "protocol": "TCP"},
                {"name": "metrics", "port": 9400, "protocol": "TCP"},
            ],
        },
    }


TEMPLATE = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "10Gi"}}}


def test_a_claim_made_from_a_template() -> None:
    volumes = {"checkpoints": {"claimTemplate": TEMPLATE}, "data": {"claimName": "digits"}}
    made = job(volumes=volumes, teacher=None)
    assert build_claim(made, "team", "checkpoints") == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "tiny-checkpoints",
            "namespace": "team",
            "labels": LABELS,
            "ownerReferences": [OWNER],
        },
        "spec": TEMPLATE,
    }
    pod = gang_job(made)["spec"]["template"]["spec"]
    assert pod["volumes"][0] == {
        "name": "checkpoints",
        "persistentVolumeClaim": {"claimName": "tiny-checkpoints"},
    }


def test_a_claim_that_is_retained_has_no_owner() -> None:
    volumes = {"checkpoints": {"claimTemplate": TEMPLATE}, "data": {"claimName": "digits"}}
    retained = {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}
    made = job(volumes=volumes, teacher=None, **retained)
    assert build_claim(made, "team", "checkpoints")["metadata"] == {
        "name": "tiny-checkpoints",
        "namespace": "team",
        "labels": LABELS,
    }
    run = gang_job(made)["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]
    assert "Retain" not in run, "an older trainer would refuse it"


def pod_spec(**spec: Any) -> dict[str, Any]:
    made: dict[str, Any] = gang_job(job(**spec))["spec"]["template"]["spec"]
    return made


def test_scheduling_fields_reach_the_pod() -> None:
    toleration = {"key": "gpu", "operator": "Exists"}
    spec = pod_spec(scheduling={"priorityClassName": "low", "nodeSelector": {"pool": "a"}, "tolerations": [toleration]})
    assert (spec["priorityClassName"], spec["nodeSelector"], spec["tolerations"]) == (
        "low",
        {"pool": "a"},
        [toleration],
    )


def test_one_port_for_every_process_of_the_pod() -> None:
    (container,) = pod_spec(accelerators={"perNode": 2})["containers"]
    assert [(p["name"], p["containerPort"]) for p in container["ports"]] == [("metrics", 9400), ("metrics-1", 9401)]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}


def test_cpu_training_asks_for_no_accelerator_and_one_node_has_no_affinity() -> None:
    spec = pod_spec(accelerators={"perNode": 0}, nodes=1)
    assert "limits" not in spec["containers"][0]["resources"]
    assert "affinity" not in spec


def test_the_platform_may_choose_the_users_ids() -> None:
    settings = replace(SETTINGS, trainer_user=None)
    made = build_job(job(), "team", 1, 2, settings)["spec"]["template"]["spec"]["securityContext"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & made.keys()
    assert made["runAsNonRoot"] is True


@pytest.mark.parametrize(("asked", "env"), [("text", []), ("json", [{"name": "DISTILL_LOG_FORMAT", "value": "json"}])])
def test_the_installation_chooses_the_format_of_the_pods_logs(asked: str, env: list[dict[str, str]]) -> None:
    made = build_job(job(), "team", 3, 2, replace(SETTINGS, trainer_log_format=asked))
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert [variable for variable in container["env"] if variable["name"] == FORMAT_VARIABLE] == env


def test_a_jobs_own_format_of_its_logs_wins() -> None:
    own = {"name": FORMAT_VARIABLE, "value": "text"}
    template = {"spec": {"containers": [{"name": "trainer", "env": [own]}]}}
    made = build_job(job(template=template), "team", 3, 2, replace(SETTINGS, trainer_log_format="json"))
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert [variable for variable in container["env"] if variable["name"] == FORMAT_VARIABLE] == [own]


def test_a_sub_path_reaches_its_mount() -> None:
    volumes = {
        "checkpoints": {"claimName": "all", "subPath": "runs"},
        "data": {"claimName": "all", "subPath": "data"},
        "models": {"claimName": "all"},
    }
    spec = pod_spec(volumes=volumes)
    mounts = {m["mountPath"]: (m["name"], m.get("subPath")) for m in spec["containers"][0]["volumeMounts"]}
    assert mounts["/checkpoints"] == ("checkpoints", "runs")
    assert mounts["/data"] == ("checkpoints", "data")
    assert mounts["/models"] == ("checkpoints", None)
    assert sum("persistentVolumeClaim" in volume for volume in spec["volumes"]) == 1


def test_shared_memory_is_for_every_process_of_the_pod() -> None:
    large = job(accelerators={"perNode": 8}, training={"batch": 16}, nodes=1)
    volumes = {volume["name"]: volume for volume in gang_job(large)["spec"]["template"]["spec"]["volumes"]}
    assert volumes["shm"] == {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}


OURS: dict[str, Any] = {
    "metadata": {"labels": {"distilljob.dev/job": "tiny"}},
    "spec": {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000},
        "containers": [{"name": "trainer", "image": "a", "env": [{"name": "HOME", "value": "/tmp"}]}],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    },
}


@pytest.mark.parametrize(
    ("users", "path", "expected"),
    [
        ({"metadata": {"labels": {"team": "x"}}}, "metadata.labels", {"distilljob.dev/job": "tiny", "team": "x"}),
        (
            {"metadata": {"labels": {"distilljob.dev/job": "stolen"}}},
            "metadata.labels",
            {"distilljob.dev/job": "tiny"},
        ),
        ({"metadata": {"annotations": {"a": "b"}}}, "metadata.annotations", {"a": "b"}),
        (
            {"spec": {"securityContext": {"runAsUser": 2000}}},
            "spec.securityContext",
            {"runAsNonRoot": True, "runAsUser": 2000},
        ),
        ({"spec": {"restartPolicy": "Always"}}, "spec.restartPolicy", "Never"),
        (
            {"spec": {"containers": [{"name": "trainer", "command": ["python"]}]}},
            "spec.containers",
            [{"name": "trainer", "image": "a", "env": [{"name": "HOME", "value": "/tmp"}], "command": ["python"]}],
        ),
        (
            {"spec": {"containers": [{"name": "trainer", "env": [{"name": "A", "value": "1"}]}]}},
            "spec.containers",
            [
                {
                    "name": "trainer",
                    "image": "a",
                    "env": [{"name": "HOME", "value": "/tmp"}, {"name": "A", "value": "1"}],
                }
            ],
        ),
        (
            {"spec": {"containers": [{"name": "logs", "image": "b"}]}},
            "spec.containers",
            [*OURS["spec"]["containers"], {"name": "logs", "image": "b"}],
        ),
        (
            {"spec": {"volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "8Gi"}}]}},
            "spec.volumes",
            [{"name": "shm", "emptyDir": {"sizeLimit": "8Gi"}}],
        ),
        ({"spec": {"runtimeClassName": "nvidia"}}, "spec.runtimeClassName", "nvidia"),
    ],
)
def test_the_users_template_is_merged_in(users: dict[str, Any], path: str, expected: object) -> None:
    node: Any = merged(OURS, users)
    for part in path.split("."):
        node = node[part]
    assert node == expected


def test_env_from_a_config_map_cannot_set_the_operators_variables() -> None:
    """Kubernetes lets a variable that is named in env win over one of envFrom; the Job controller names its own."""
    source = [{"configMapRef": {"name": "nccl"}}]
    (container,) = pod_spec(template={"spec": {"containers": [{"name": "trainer", "envFrom": source}]}})["containers"]
    assert container["envFrom"] == source
    named = {variable["name"] for variable in container["env"]}
    assert {value for key, value in vars(Env).items() if key.isupper()} - named == {Env.NODE_RANK}


def test_the_template_is_read_and_not_changed() -> None:
    users = {"spec": {"containers": [{"name": "trainer", "command": ["python"]}]}}
    before = json.dumps([OURS, users])
    merged(OURS, users)
    assert json.dumps([OURS, users]) == before


IMAGE = {"reference": "registry.example.com/coco@sha256:12", "pullPolicy": "IfNotPresent"}
FILLS = {"spec": {"initContainers": [{"name": "fetch", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}


@pytest.mark.parametrize(
    ("source", "volume"),
    [
        ({"image": IMAGE}, {"image": IMAGE}),
        ({"image": {"reference": "coco:1"}}, {"image": {"reference": "coco:1"}}),
        ({"emptyDir": {}}, {"emptyDir": {}}),
        ({"emptyDir": {"sizeLimit": "20Gi"}}, {"emptyDir": {"sizeLimit": "20Gi"}}),
    ],
)
def test_data_and_models_can_have_sources_of_their_own(source: dict[str, Any], volume: dict[str, Any]) -> None:
    runs = {"claimName": "runs"}
    made = job(volumes={"checkpoints": runs, "data": {**source, "subPath": "a"}, "models": source}, template=FILLS)
    pod = gang_job(made)["spec"]["template"]["spec"]
    assert pod["volumes"][:3] == [
        {"name": "checkpoints", "persistentVolumeClaim": {"claimName": "runs"}},
        {"name": "data", **volume},
        {"name": "models", **volume},
    ]
    assert pod["containers"][0]["volumeMounts"][:3] == [
        {"name": "checkpoints", "mountPath": "/checkpoints"},
        {"name": "data", "mountPath": "/data", "subPath": "a", "readOnly": True},
        {"name": "models", "mountPath": "/models", "readOnly": True},
    ]
    assert pod["initContainers"] == FILLS["spec"]["initContainers"]
    assert RunConfig.model_validate_json(pod["containers"][0]["env"][0]["value"]).directories.models == "/models"


@pytest.mark.parametrize(
    ("medium", "volume", "requests"),
    [
        ("node", {"emptyDir": {}}, {"cpu": "2500m", "memory": "4422Mi", "ephemeral-storage": "204800Mi"}),
        (
            "ram",
            {"emptyDir": {"medium": "Memory", "sizeLimit": "200Gi"}},
            {"cpu": "2500m", "memory": f"{4422 + 204800}Mi"},
        ),
    ],
)
def test_a_data_cache_has_a_volume_and_is_requested(
    medium: str, volume: dict[str, Any], requests: dict[str, str]
) -> None:
    pod = gang_job(job(dataCache={"medium": medium, "size": "200Gi"}))["spec"]["template"]["spec"]
    assert pod["volumes"][-1] == {"name": "data-cache", **volume}
    (trainer,) = pod["containers"]
    assert trainer["volumeMounts"][-1] == {"name": "data-cache", "mountPath": "/data-cache"}
    assert trainer["resources"]["requests"] == requests
    told = RunConfig.model_validate_json(trainer["env"][0]["value"])
    assert told.directories.cache == "/data-cache"
    assert told.spec.data_cache is not None


def test_a_job_without_a_data_cache_tells_the_trainer_nothing_of_it() -> None:
    told = gang_job(job())["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]
    assert "cache" not in told.lower(), "an older trainer would refuse it"
