"""`make demo`: trains a teacher, and a student without and with it, whom a preemption hits; all on this machine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from digits.demo import board, closing, stage, story, table
from digits.demo.narrator import Narrator
from distill_api.constants import Phase
from testcluster.artifacts import debian

GPUS = 2
TRAIN_IMAGES, VAL_IMAGES, IMGSZ = 640, 96, 96
RUNS = stage.ROOT / "runs"


def why_not_a_cluster() -> str | None:
    """The reason why this machine cannot run the one-machine Kubernetes cluster; None if it can."""
    if os.environ.get("DISTILL_KUBECONFIG"):
        return None
    if sys.platform != "linux":
        return "the one-machine Kubernetes cluster needs Linux"
    if os.geteuid() != 0:
        return "the one-machine Kubernetes cluster needs root"
    if shutil.which("go") is None:
        return "the one-machine Kubernetes cluster is built with Go, but `go` is not on the PATH"
    try:
        debian.suite()
    except RuntimeError as error:
        return str(error)
    return None


def on_cluster(narrator: Narrator) -> None:
    """Run the demo on a Kubernetes cluster. If it was started here, remove it at the end unless KEEP=1."""
    with narrator.step("starting Kubernetes: a control plane and two nodes"):
        cluster, started = stage.open_cluster(GPUS)
    keep = os.environ.get("KEEP") == "1" or not started
    volumes = _scratch() / "demo"  # a fixed path, because the claims of a kept cluster point to it
    try:
        with narrator.step("building and loading the operator's image"):
            cluster.load_image(stage.OPERATOR_IMAGE)
            cluster.load_image(stage.BASE_IMAGE)
        if not started:
            story.clear(cluster)
        shutil.rmtree(volumes / "runs", ignore_errors=True)
        with narrator.step("helm install distill-operator"):
            stage.install_operator(cluster)
        with narrator.step(f"making {TRAIN_IMAGES} + {VAL_IMAGES} scenes of handwritten digits"):
            stage.make_directories(volumes)
            stage.make_digits(volumes / "data", train=TRAIN_IMAGES, val=VAL_IMAGES, imgsz=IMGSZ)
            stage.prepare_namespace(cluster, story.NAMESPACE, volumes)
        shutil.rmtree(volumes / "prometheus", ignore_errors=True)
        with board.recording(cluster, volumes / "prometheus") as recorded:
            job = story.tell(cluster, narrator, gpus=GPUS)

        print("\n$ kubectl get dj -n", story.NAMESPACE)
        print(cluster.kubectl("get", "dj", "-n", story.NAMESPACE))
        run = volumes / "runs" / job["metadata"]["name"]
        print("\n".join(table.attempts(job)), "\n")
        outcome(run / "report.json")
        best = RUNS / "demo" / "best.pt"
        best.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(volumes / "runs" / job["status"]["result"]["checkpoint"], best)
        report = best.with_name("report.html")
        shutil.copy(run / "report.html", report)
        prove(best, volumes / "data" / "digits.yaml", job["status"]["result"].get("studentMap"))
        picture = best.with_name("board.png")
        with narrator.step("drawing the job's board in Grafana from what its Prometheus saw"):
            recorded.draw(job, picture)
        told = closing.board(picture.relative_to(stage.ROOT), recorded.missing)
        show(report, told, closing.on_cluster(story.NAMESPACE, story.PLAIN, story.STUDENT, kept=keep))
    finally:
        if keep:
            narrator.say(f"the cluster keeps running: export KUBECONFIG={cluster.kubeconfig}")
            narrator.say(f"volumes are in {volumes}; remove the cluster with `make cluster-down`")
        else:
            with narrator.step("removing the cluster"):
                cluster.down()
            shutil.rmtree(volumes, ignore_errors=True)


def _scratch() -> Path:
    path = stage.ROOT / "build"
    path.mkdir(exist_ok=True)
    return path


def outcome(report: Path) -> None:
    """Print what the student gained, and what it had from the teacher."""
    print("\n".join(["", closing.scores(json.loads(report.read_text())), table.learned(report), ""]))


def prove(best: Path, data: Path, student_map: float | None) -> None:
    """Load the student with Ultralytics, and print its mAP and that of the status."""
    shown = best.relative_to(stage.ROOT)
    print(f"The student's weights: {shown}")
    measured = table.validate(best, data, IMGSZ, _scratch() / "val")
    print(f'YOLO("{shown}").val(): mAP50-95 {measured:.3f}; in the status: {table.number(student_map)}')


def show(report: Path, board_: str, next_steps: list[str]) -> None:
    """Print where to see more, and what to try next."""
    parts = closing.where(report.relative_to(stage.ROOT), board_), next_steps
    print("\n" + "\n\n".join("\n".join(part) for part in parts) + "\n")


def locally(narrator: Narrator) -> None:
    """Run the same YAML files without Kubernetes: two CPU ranks on this machine."""
    volumes = RUNS / "volumes"
    with narrator.step(f"making {TRAIN_IMAGES} + {VAL_IMAGES} scenes of handwritten digits"):
        stage.make_digits(volumes / "digits", train=TRAIN_IMAGES, val=VAL_IMAGES, imgsz=IMGSZ)
    for file in story.JOBS.values():
        command = ["distill", "run", f"examples/digits/{file}"]
        narrator.say("$ " + " ".join(command))
        program = Path(sys.executable).with_name("distill")
        subprocess.run([str(program), *command[1:], "--runs", str(RUNS)], check=True, cwd=stage.ROOT)
    run = volumes / "runs" / story.STUDENT
    outcome(run / "report.json")
    prove(run / "weights" / "best.pt", volumes / "digits" / "digits.yaml", None)
    show(run / "report.html", closing.board(None, "it needs the cluster"), closing.without_cluster())


def main() -> int:
    """Run the demo. Returns 0 if it succeeded."""
    narrator = Narrator()
    reason = why_not_a_cluster()
    try:
        if reason is None:
            on_cluster(narrator)
        else:
            narrator.say(f"{reason}; running the same jobs on this machine without Kubernetes")
            locally(narrator)
    except (story.TourFailed, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.returncode or 1
    except KeyboardInterrupt:
        print(
            "interrupted; `make demo` begins again, `make cluster-down` removes a cluster that is left", file=sys.stderr
        )
        return 130
    narrator.say(f"demo finished: {Phase.SUCCEEDED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
