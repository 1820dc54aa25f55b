"""`distill run` and `distill validate`: what a user is told, and which attempt is started where."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from distill_api.job import DistillJob, parse_job
from distill_api.spec.recipe import AUTO
from distill_api.spec.volumes import SourceVolume
from distill_cli.main import app
from distill_local.machine import Machine, UserError, local_uid, next_attempt, run_config


def document(**spec: Any) -> dict[str, Any]:
    """A valid job; `spec` replaces fields."""
    return {
        "apiVersion": "distilljob.dev/v1alpha1",
        "kind": "DistillJob",
        "metadata": {"name": "digits"},
        "spec": {
            "student": {"model": "yolo26n.yaml"},
            "dataset": {"config": "digits.yaml"},
            "nodes": 2,
            "accelerators": {"perNode": 2},
            "volumes": {"checkpoints": {"claimName": "ckpt"}, "data": {"claimName": "digits", "subPath": "v1"}},
            **spec,
        },
    }


def job(**spec: Any) -> DistillJob:
    return parse_job(document(**spec))


def machine(root: Path, processes: int | None = None, **claims: Path) -> Machine:
    (root / "volumes/digits/v1").mkdir(parents=True, exist_ok=True)
    return Machine(root, claims, processes)


def test_all_nodes_become_ranks_of_one_node_and_claims_become_directories(tmp_path: Path) -> None:
    config = run_config(job(), machine(tmp_path), 1234, tmp_path / "termination")

    assert (config.nodes, config.local_world_size, config.world_size) == (1, 4, 4)
    assert config.spec.world_size == 4
    assert config.attempt == 1
    assert config.rendezvous == "127.0.0.1:1234"
    assert config.directories.checkpoints == str(tmp_path / "volumes/ckpt")
    assert config.directories.data == str(tmp_path / "volumes/digits/v1")
    assert config.directories.models is None


def test_fewer_ranks_keep_the_shards_and_so_the_run(tmp_path: Path) -> None:
    whole = run_config(job(), machine(tmp_path), 1, tmp_path / "t")
    half = run_config(job(), machine(tmp_path, 2), 1, tmp_path / "t")

    assert (half.world_size, half.spec.world_size, half.uid) == (2, 4, whole.uid)
    with pytest.raises(UserError, match=r"nproc 3 does not divide the job's 4 shards .*; use one of 1, 2, 4"):
        run_config(job(), machine(tmp_path, 3), 1, tmp_path / "t")


def test_a_claim_may_be_any_directory(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/v1").mkdir(parents=True)
    config = run_config(job(), machine(tmp_path, digits=tmp_path / "elsewhere"), 1, tmp_path / "t")

    assert config.directories.data == str(tmp_path / "elsewhere/v1")
    with pytest.raises(UserError, match="claim other, which the job does not use; its claims are ckpt, digits"):
        run_config(job(), machine(tmp_path, other=tmp_path), 1, tmp_path / "t")


def test_a_missing_data_directory_is_named_with_the_option_that_gives_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\(volumes.data\) does not exist; create it, or .* \(--volume digits=DIR\)"):
        run_config(job(), Machine(tmp_path, {}, None), 1, tmp_path / "t")


def test_a_source_that_is_no_claim_needs_a_directory(tmp_path: Path) -> None:
    source = SourceVolume.model_validate({"image": {"reference": "coco:1"}})
    made = job()
    volumes = made.spec.volumes.model_copy(update={"data": source})
    made = made.model_copy(update={"spec": made.spec.model_copy(update={"volumes": volumes})})
    name = f"{made.metadata.name}-data"
    with pytest.raises(UserError, match=rf"a local run pulls no image .* \(--volume {name}=DIR\)"):
        run_config(made, Machine(tmp_path, {}, None), 1, tmp_path / "t")
    config = run_config(made, Machine(tmp_path, {name: tmp_path}, None), 1, tmp_path / "t")
    assert config.directories.data == str(tmp_path)


def test_the_next_attempt_follows_the_fence_of_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    fence = tmp_path / "checkpoints/fence"
    assert next_attempt(tmp_path, "uid") == 1
    fence.write_text(json.dumps({"uid": "uid", "attempt": 4}))
    assert next_attempt(tmp_path, "uid") == 5
    assert next_attempt(tmp_path, "other") == 1, "nothing was committed: the job was corrected"
    (tmp_path / "checkpoints/step-3").mkdir()
    with pytest.raises(UserError, match="has the checkpoints of another run"):
        next_attempt(tmp_path, "other")
    fence.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        next_attempt(tmp_path, "uid")


def test_the_uid_follows_what_defines_the_run_and_nothing_else() -> None:
    assert local_uid(job()) == local_uid(job(checkpoint={"intervalSeconds": 5}, device="cpu"))
    assert local_uid(job()) != local_uid(job(training={"epochs": 3}))
    assert local_uid(job()) != local_uid(job(nodes=1))


def run_cli(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_validate_says_one_line_for_each_mistake_and_exits_78(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document(training={"epochs": 0, "batsch": 3})))
    code, output = run_cli("validate", str(file))

    assert code == 78
    assert output.splitlines() == [
        f"error: {file}: spec.training.epochs: must be greater than or equal to 1, but is 0",
        f"error: {file}: spec.training.batsch: unknown field; did you mean batch?",
    ]


def test_validate_refuses_a_pod_template_as_the_api_server_does(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document(template={"spec": {"serviceAccount": "admin"}})))
    code, output = run_cli("validate", str(file))
    assert code == 78
    assert "template.spec.serviceAccount would give the pod a service account" in output


def test_validate_accepts_a_good_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document()))

    assert run_cli("validate", str(file)) == (0, f"{file}: DistillJob digits is valid\n")


def test_validate_says_what_recipe_auto_stands_for(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        yaml.safe_dump(
            document(
                recipe="auto",
                teacher={"model": "best.pt"},
                volumes=document()["spec"]["volumes"] | {"models": {"claimName": "m"}},
            )
        )
    )
    code, output = run_cli("validate", str(file))
    first, second = output.splitlines()
    assert (code, first) == (0, f"{file}: DistillJob digits is valid")
    assert json.loads(second.removeprefix("recipe: auto stands for ")) == AUTO


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", "not a YAML file"),
        (b"\xff\xfe\x00", "not a YAML file"),
        (b"kind: Pod", "expected one document of kind DistillJob, found 0: kind Pod"),
        (None, "No such file or directory"),
    ],
)
def test_an_unusable_file_ends_without_a_traceback(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "job.yaml"
    if content is not None:
        file.write_bytes(content)
    for command in ("validate", "run"):
        code, output = run_cli(command, str(file))
        assert (code, "Traceback" in output) == (78, False)
        assert said in output


def test_a_device_that_the_job_cannot_use_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document(accelerators={"perNode": 0}, device="cpu")))
    code, output = run_cli("run", str(file), "--device", "cuda", "--runs", str(machine(tmp_path).runs))

    assert code == 78
    assert "device is cuda but accelerators.perNode is 0" in output


def test_the_command_starts_without_loading_pytorch() -> None:
    script = (
        "import sys, distill_cli.main; print([m for m in ('torch', 'ultralytics', 'kubernetes') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
