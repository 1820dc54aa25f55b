"""Writes the outputs of a finished run, on rank 0: plots, exports, TensorBoard events and the report.

Every output is optional: if one fails, the log and the report say so, and the run still succeeds. A stop request is
handled between two outputs and during an export; the next attempt has nothing left to train and continues here.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ultralytics import __version__ as ultralytics_version

from distill_api.constants import JobFile
from distill_api.errors import Stopped
from distill_api.pod.run import RunConfig
from distill_trainer.checkpoint.format.versions import Versions
from distill_trainer.checkpoint.store.storage import atomic_write
from distill_trainer.models.loading import load_checkpoint
from distill_trainer.models.setup import Prepared
from distill_trainer.outputs import pictures
from distill_trainer.outputs.export.export import export_weights
from distill_trainer.outputs.figures import ValidationFigures
from distill_trainer.outputs.optional import try_output
from distill_trainer.outputs.report.examples import Examples, examples
from distill_trainer.outputs.report.html import report_html
from distill_trainer.outputs.report.measure import ModelCost, device_name, measure
from distill_trainer.outputs.report.report import (
    Attempt,
    Dataset,
    Inherited,
    Measured,
    ModelReport,
    ModelRole,
    Output,
    Report,
    Training,
    finite_rows,
)
from distill_trainer.outputs.results import read_rows, write_args
from distill_trainer.outputs.tensorboard import event_files
from distill_trainer.process.rank.context import RankContext
from distill_trainer.training.evaluation.comparison import Baseline
from distill_trainer.training.evaluation.scores import Score
from distill_trainer.training.parallel.environment import Environment
from distill_trainer.training.saving.state import TrainingProgress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedRun:
    """The results of a run, computed by all ranks together."""

    progress: TrainingProgress
    student: Score
    """Score of weights/best.pt."""
    teacher: Score | None
    baseline: Baseline | None
    figures: ValidationFigures | None
    """Data for the plots; None: no plots."""
    labels: Sequence[Any]
    """Labels of the training images."""
    val_images: int
    """Images in the validation split."""


@dataclass(frozen=True)
class _Model:
    """A model of the report."""

    role: ModelRole
    file: str
    """Path relative to its volume."""
    path: Path
    score: Score
    trust_pickle: bool = False

    @property
    def size(self) -> int:
        """Bytes of the file; 0 if it does not exist, which is reported when its cost is measured."""
        return self.path.stat().st_size if self.path.is_file() else 0


@dataclass(frozen=True)
class Finish:
    """Writes all outputs of a finished run."""

    run_config: RunConfig
    context: RankContext
    environment: Environment
    prepared: Prepared
    finished: FinishedRun

    def run(self) -> None:
        """Write all outputs, the report last. Raises Stopped."""
        self.context.status.update(state="finishing")
        outputs = [self._write(name, write) for name, write in self._outputs()]
        if self.finished.baseline is not None and self.finished.baseline.problem is not None:
            log.warning("baseline: not compared: %s", self.finished.baseline.problem)
            outputs.append(Output(name="baseline", problem=self.finished.baseline.problem))
        models: dict[ModelRole, ModelReport] = {}
        for model in self._models():
            cost, problem = try_output(f"cost of the {model.role}", partial(self._cost, model))
            if problem is not None:
                outputs.append(Output(name=f"cost of the {model.role}", problem=problem))
            models[model.role] = _model_report(model, cost)
        shown = None
        if self._compares:
            shown, problem = try_output("pictures of the report", self._examples)
            outputs += [Output(name="pictures of the report", problem=problem)] if problem is not None else []
        shown = shown or Examples()
        report, _ = try_output("report.json", lambda: self._report(models, outputs, shown))
        if report is not None:
            try_output(JobFile.REPORT, lambda: atomic_write(self._root / JobFile.REPORT, report_html(report, shown)))
            log.info("report written to %s", self._root / JobFile.REPORT)

    @property
    def _root(self) -> Path:
        return self.context.files.root

    def _check_stop(self) -> None:
        self.context.watchdog.beat("writing outputs")
        if self.context.stop.requested:
            raise Stopped(self.finished.progress.step, self.context.checkpointer.committed_step)

    def _write(self, name: str, write: Callable[[], list[str]]) -> Output:
        self._check_stop()
        files, problem = try_output(name, write)
        return Output(name=name, files=files or [], problem=problem)

    def _outputs(self) -> list[tuple[str, Callable[[], list[str]]]]:
        figures, root, files = self.finished.figures, self._root, self.context.files
        outputs: list[tuple[str, Callable[[], list[str]]]] = [
            ("weights", lambda: [str(path.relative_to(root)) for path in (files.best, files.last)]),
            ("arguments", self._arguments),
            ("TensorBoard", self._events),
        ]
        if figures is not None:
            outputs += [
                ("training curves", lambda: [files.results_csv.name, *pictures.draw_results(files.results_csv)]),
                ("confusion matrix", lambda: pictures.draw_confusion(figures, root)),
                ("precision and recall", lambda: pictures.draw_curves(figures, root)),
                ("validation batches", lambda: pictures.write_batches(figures, root)),
                ("labels", lambda: pictures.draw_labels(self.finished.labels, self.prepared.dataset.names, root)),
            ]
        formats = dict.fromkeys(self.run_config.spec.export.formats)
        return outputs + [(name, partial(self._export, name)) for name in formats]

    def _arguments(self) -> list[str]:
        path = self.context.files.args_yaml
        write_args(path, vars(self.prepared.arguments))
        return [path.name]

    def _events(self) -> list[str]:
        folder = self.context.files.tensorboard
        for path, content in event_files(folder, read_rows(self.context.files.results_csv), time.time()).items():
            atomic_write(path, content)
        return [folder.name]

    def _export(self, export_format: str) -> list[str]:
        return export_weights(
            self.context.files.best,
            export_format,
            self.run_config.spec.export,
            imgsz=self.prepared.imgsz,
            sha256=self.finished.student.sha256,
            check_stop=self._check_stop,
        )

    def _models(self) -> list[_Model]:
        spec, directories, finished = self.run_config.spec, self.run_config.directories, self.finished
        best = self.context.files.best
        name = str(best.relative_to(directories.checkpoints))
        models = [_Model("student", name, best, finished.student, spec.student.trust_pickle)]
        if spec.teacher is not None and finished.teacher is not None:
            path = Path(directories.models or "") / spec.teacher.model
            models.append(_Model("teacher", spec.teacher.model, path, finished.teacher, spec.teacher.trust_pickle))
        baseline = finished.baseline
        if baseline is not None and baseline.path is not None and baseline.score is not None:
            models.append(_Model("baseline", baseline.name, baseline.path, baseline.score))
        return models

    def _cost(self, model: _Model) -> ModelCost:
        self._check_stop()
        return measure(
            load_checkpoint(model.path, trust_pickle=model.trust_pickle),
            imgsz=self.prepared.imgsz,
            channels=self.prepared.dataset.channels,
            device=self.environment.device,
            check_stop=self._check_stop,
        )

    @property
    def _compares(self) -> bool:
        """Whether there is a teacher to compare the student's detections with, and pictures are wanted."""
        return self.finished.figures is not None and self.finished.teacher is not None

    def _examples(self) -> Examples:
        models = {model.role: partial(load_checkpoint, model.path, trust_pickle=model.trust_pickle)
                  for model in self._models()}  # fmt: skip
        return examples(
            models,
            self.prepared.dataset.val.images,
            task=self.prepared.task,
            imgsz=self.prepared.imgsz,
            device=self.environment.device,
            names=self.prepared.dataset.names,
            check_stop=self._check_stop,
        )

    def _attempt(self) -> Attempt:
        return Attempt(
            number=self.run_config.attempt,
            nodes=self.run_config.nodes,
            ranks=self.environment.world_size,
            seconds=self.context.status.seconds(),
        )

    def _inherited(self) -> Inherited | None:
        inherited = self.prepared.inherited
        if inherited is None:
            return None
        return Inherited(
            channels=self.run_config.spec.student.inherit.channels,
            images=self.run_config.spec.student.inherit.images,
            share=inherited.share,
            tensors=inherited.tensors,
            of_tensors=inherited.of_tensors,
            left=inherited.reasons(),
        )

    def _report(self, models: dict[ModelRole, ModelReport], outputs: list[Output], shown: Examples) -> Report:
        spec, finished, prepared = self.run_config.spec, self.finished, self.prepared
        distilled = spec.distillation if spec.teacher is not None and spec.distillation.losses else None
        report = Report(
            job=self.run_config.job,
            task=prepared.task,
            imgsz=prepared.imgsz,
            dataset=Dataset(config=spec.dataset.config, digest=prepared.dataset.digest, images=finished.val_images),
            measured=Measured(
                device=str(self.environment.device),
                name=device_name(self.environment.device),
                threads=torch.get_num_threads(),
                torch=torch.__version__,
                ultralytics=ultralytics_version,
            ),
            training=Training(
                epochs=finished.progress.epochs_finished,
                planned=spec.training.epochs,
                best_epoch=finished.progress.best_epoch,
                seconds=round(finished.progress.seconds, 3),
                recipe=self.run_config.recipe,
                loss=" + ".join(distilled.losses) if distilled else None,
                weight=distilled.weight if distilled and not distilled.terms else None,
                schedule=distilled.schedule if distilled else None,
                inherited=self._inherited(),
            ),
            attempt=self._attempt(),
            agreement=shown.agreement,
            versions=_versions(),
            spec={name: value for name, value in spec.to_wire().items() if name != "template"},
            models=models,
            epochs=finite_rows(read_rows(self.context.files.results_csv)),
            outputs=outputs,
        )
        atomic_write(self._root / "report.json", report.to_json())
        return report


def _versions() -> dict[str, str]:
    packages = asdict(Versions.present(torch.__version__)) | {"python": platform.python_version()}
    if torch.version.cuda is not None:
        packages["CUDA"] = torch.version.cuda
    return {name: found for name, found in packages.items() if found is not None}


def _model_report(model: _Model, cost: ModelCost | None) -> ModelReport:
    score = model.score
    return ModelReport(
        file=model.file,
        sha256=score.sha256,
        size_mb=model.size / 1e6,
        map=score.map50_95,
        map50=score.map50,
        precision=score.precision,
        recall=score.recall,
        map_by_class=score.per_class,
        parameters=cost.parameters if cost else None,
        gflops=cost.gflops if cost else None,
        latency_ms=cost.latency_ms if cost else None,
    )
