"""Small models and batches for the trainer's tests: real architectures of Ultralytics, random weights and images."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

import distill_trainer  # noqa: F401  (first: it keeps ultralytics offline)
from distill_api.spec.fields import DistillJobSpec
from distill_api.spec.training import Training
from distill_trainer.data import DatasetInfo, Shards, TrainData
from distill_trainer.data.config import read_dataset
from distill_trainer.data.labels.opening import scan_dataset
from distill_trainer.models.arguments import ultralytics_arguments
from distill_trainer.models.student import build_student, student_source
from distill_trainer.training.evaluation.val_data import ValData
from distill_trainer.training.parallel.environment import Environment

CPU = torch.device("cpu")
ONEDNN = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
"""Whether PyTorch computes convolutions with oneDNN here."""
ALONE = Environment(rank=0, local_rank=0, world_size=1, local_world_size=1, node_rank=0, device=CPU)
"""A rank without others."""
CLASSES = {0: "cat", 1: "dog", 2: "owl"}
SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb"}
KEYPOINTS = (4, 3)


def load_dataset(config: Path, root: Path, task: str, **settings: Any) -> DatasetInfo:
    """A data set, scanned into this process's memory; `settings` are those of `read_dataset`."""
    return scan_dataset(read_dataset(config, root, task, **settings))


def train_data(info: DatasetInfo, training: Training, shards: Shards = Shards(1, (0,))) -> TrainData:  # noqa: B008
    """The training data of one rank on the CPU; alone unless `shards` says otherwise."""
    return TrainData(info, training, imgsz=training.imgsz, stride=32, shards=shards, device=CPU)


def val_data(info: DatasetInfo, training: Training, batch: int, environment: Environment = ALONE) -> ValData:
    """The validation data of one rank."""
    return ValData(info, training, imgsz=training.imgsz, stride=32, batch=batch, environment=environment)


def job_spec(**fields: Any) -> DistillJobSpec:
    """A valid CPU job of one process, with top-level fields replaced."""
    claim = {"claimName": "claim"}
    spec = {
        "student": {"model": "yolo26n.yaml"},
        "teacher": {"model": "teacher.pt", "precision": "fp32"},
        "dataset": {"config": "data.yaml"},
        "accelerators": {"perNode": 0},
        "volumes": {"checkpoints": claim, "data": claim, "models": claim},
        "training": {"batch": 4, "imgsz": 64},
    }
    return DistillJobSpec.model_validate(spec | fields)


def dataset(classes: dict[int, str] | None = None) -> Any:
    names = classes or CLASSES
    return SimpleNamespace(names=names, nc=len(names), channels=3, kpt_shape=KEYPOINTS, kpt_oks_sigmas=())


def build(name: str, task: str = "detect", seed: int = 0, imgsz: int = 64, **training: Any) -> Any:
    """A model with random weights, trained-looking running statistics, and biases that let classes differ."""
    fields = {"batch": 4, "imgsz": imgsz} | training
    arguments = ultralytics_arguments(job_spec(training=fields), task, imgsz)
    return build_student(student_source(None, name), dataset(), arguments, seed)


def teach(model: Any, seed: int = 7) -> Any:
    """Give a random model running statistics and class scores as a trained one has: neither 0 nor all alike."""
    generator = torch.Generator().manual_seed(seed)
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(torch.rand(4, 3, 64, 64, generator=generator))
        head = model.model[-1]
        for branches in (head.cv3, getattr(head, "one2one_cv3", None) or []):
            for branch in branches:
                branch[-1].bias.normal_(generator=generator)
    return model.eval()


def shard_batch(images: int, task: str = "detect", seed: int = 0, imgsz: int = 64) -> dict[str, Any]:
    """A collated batch as Ultralytics' data sets make it: uint8 images and two objects each."""
    random = torch.Generator().manual_seed(seed)
    objects = 2 * images
    centre = 0.3 + 0.4 * torch.rand(objects, 2, generator=random)
    size = 0.2 + 0.2 * torch.rand(objects, 2, generator=random)
    batch: dict[str, Any] = {
        "img": torch.randint(0, 256, (images, 3, imgsz, imgsz), generator=random, dtype=torch.uint8),
        "cls": torch.randint(0, len(CLASSES), (objects, 1), generator=random).float(),
        "bboxes": torch.cat([centre, size], 1),
        "batch_idx": torch.arange(images).repeat_interleave(2).float(),
    }
    if task == "segment":
        side = imgsz // 4
        masks = torch.zeros(images, side, side)
        masks[:, side // 4 : side // 2, side // 4 : side // 2] = 1
        masks[:, side // 2 : side - 4, side // 2 : side - 4] = 2
        batch["masks"] = masks
        batch["sem_masks"] = torch.randint(0, len(CLASSES), (images, side, side), generator=random)
    elif task == "pose":
        points = centre[:, None] + (torch.rand(objects, KEYPOINTS[0], 2, generator=random) - 0.5) * size[:, None]
        batch["keypoints"] = torch.cat([points, torch.full((objects, KEYPOINTS[0], 1), 2.0)], 2)
    elif task == "obb":
        batch["bboxes"] = torch.cat([centre, size, torch.rand(objects, 1, generator=random)], 1)
    return batch


def preprocessed(batch: dict[str, Any]) -> dict[str, Any]:
    return batch | {"img": batch["img"].float() / 255}


def packed(model: nn.Module) -> int:
    """How many convolutions have their weights packed for oneDNN."""
    return sum(type(module.__dict__.get("forward")).__name__ == "_Packed" for module in model.modules())
