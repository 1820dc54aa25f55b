"""What is trained on what: student, teacher, data set, and how the student learns from the teacher."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distill_api.base import Model
from distill_api.spec.inherit import Inherit, Init
from distill_api.spec.outputs import RelativePath
from distill_api.spec.rules.rule import Rule, check


def _one_end(until: "Until") -> bool:
    return [until.epochs, until.fraction, until.close_mosaic].count(None) >= 2


def _some_end(until: "Until") -> bool:
    ends = (until.epochs, until.fraction, until.close_mosaic, until.min_improvement)
    return any(end is not None for end in ends)


def _stop_has_an_end(distillation: "Distillation") -> bool:
    return distillation.schedule != "stop" or distillation.until is not None


def _constant_has_no_end(distillation: "Distillation") -> bool:
    return distillation.schedule != "constant" or distillation.until is None


def _improvement_has_one_weight(distillation: "Distillation") -> bool:
    return distillation.schedule == "stop" or distillation.until is None or distillation.until.min_improvement is None


def _terms_or_one_loss(distillation: "Distillation") -> bool:
    return not distillation.terms or (distillation.loss, distillation.weight) == ("sl2", 6.0)


def _each_loss_once(distillation: "Distillation") -> bool:
    return len({term.loss for term in distillation.terms}) == len(distillation.terms)


def _share_has_terms(distillation: "Distillation") -> bool:
    return distillation.share is None or len(distillation.terms) > 0


UNTIL: Sequence[Rule] = (
    Rule(
        "[has(self.epochs), has(self.fraction), has(self.closeMosaic)].filter(given, given).size() <= 1",
        "give only one of epochs, fraction and closeMosaic in distillation.until",
        _one_end,
    ),
    Rule(
        "has(self.epochs) || has(self.fraction) || has(self.closeMosaic) || has(self.minImprovement)",
        "distillation.until says nothing; give epochs, fraction, closeMosaic or minImprovement, or leave it out",
        _some_end,
    ),
)

DISTILLATION: Sequence[Rule] = (
    Rule(
        "self.schedule != 'stop' || has(self.until)",
        "distillation.schedule is stop but nothing says when; give epochs, fraction, closeMosaic or minImprovement in"
        " until",
        _stop_has_an_end,
    ),
    Rule(
        "self.schedule == 'stop' || !has(self.until) || !has(self.until.minImprovement)",
        "distillation.until.minImprovement compares losses of the same weight; set distillation.schedule to stop",
        _improvement_has_one_weight,
    ),
    Rule(
        "self.schedule != 'constant' || !has(self.until)",
        "distillation.until has no effect on a constant weight; set distillation.schedule to stop or cosine,"
        " or leave until out",
        _constant_has_no_end,
    ),
    Rule(
        "self.terms.size() == 0 || self.loss == 'sl2' && self.weight == 6.0",
        "distillation.terms takes the place of loss and weight; leave them out",
        _terms_or_one_loss,
    ),
    Rule(
        "self.terms.all(term, self.terms.exists_one(other, other.loss == term.loss))",
        "distillation.terms has a loss twice; give each loss once",
        _each_loss_once,
    ),
    Rule(
        "!has(self.share) || self.terms.size() > 0",
        "distillation.share weighs terms; give terms, such as {loss: spkd}, or leave share out",
        _share_has_terms,
    ),
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Student(Model):
    """The model to train."""

    model: RelativePath
    """A .pt file on the models volume, or the name of an Ultralytics architecture such as yolo26n.yaml."""
    trust_pickle: bool = False
    """Load a .pt file with classes other than Ultralytics' and torch's. Such a file can run any code in the training
    pods and is refused by default."""
    init: Init = "default"
    """The first weights. default: those of the .pt file, or random ones for an architecture. inherit: a small copy of
    the teacher, wherever the layers of both models correspond, and the default elsewhere."""
    inherit: Inherit = Inherit()
    """How it is made, if init is inherit."""


class Teacher(Model):
    """The frozen model that the student learns from."""

    model: RelativePath
    """A trained .pt file on the models volume, for example digits-teacher/weights/best.pt."""
    sha256: Sha256 | None = None
    """SHA-256 of the file, 64 lower case hex digits. If the file has another digest, the job fails before anything of
    the file is loaded."""
    trust_pickle: bool = False
    """Load a file with classes other than Ultralytics' and torch's. Such a file can run any code in the training pods
    and is refused by default. Set sha256 as well, so that only this file is trusted."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the teacher's computations. auto: bf16 (fp16 on GPUs before Ampere) if a short measurement as
    the run begins finds it at least 1.25 times as fast as fp32, else fp32; checkpoints keep what was chosen."""
    batch_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of each batch that the teacher sees and the student is compared on, at least one image of each shard; 0.5
    halves the cost of distillation. Unlabelled images come first."""


class Unlabelled(Model):
    """Images without labels, from which the student learns what the teacher sees."""

    images: RelativePath
    """A folder of images, or a list file, on the data volume. Label files beside them are not read."""
    ratio: Annotated[float, Field(gt=0, le=8)] = 1.0
    """Unlabelled images per labelled one in each batch. training.batch does not count them."""


class Dataset(Model):
    """The data set, in Ultralytics' format."""

    config: RelativePath
    """The data set's YAML file on the data volume."""
    unlabelled: Unlabelled | None = None
    """More images, without labels. They only count in the distillation loss, and only until distillation ends."""


class Until(Model):
    """When distillation ends: at one of epochs, fraction and closeMosaic, or earlier by minImprovement. Training then
    continues without the teacher."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """After this many epochs."""
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """After this fraction of all training steps."""
    close_mosaic: Literal[True] | None = None
    """When mosaic is turned off, training.close_mosaic epochs before the end."""
    min_improvement: Annotated[float, Field(gt=0, lt=1)] | None = None
    """After the first epoch whose mean distillation loss is not lower than that of the epoch before by at least this
    part, such as 0.03. With one of the other fields, whichever is first."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        return check(self, UNTIL)


class Term(Model):
    """A part of the distillation loss."""

    loss: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=40)]
    """sl2, cwd, pkd, spkd: on the neck's features. logit, bckd: on class scores. iou: on boxes. oks: on keypoints.
    mask: on masks. Or the name of a loss that the trainer image has an entry point for (distilljob.losses)."""
    weight: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Weight of the term. Default: the loss's own."""


class Distillation(Model):
    """How the student learns from the teacher."""

    weight: Annotated[float, Field(ge=0, le=1000)] = 6.0
    """Weight of the distillation loss in the total loss (Ultralytics' dis)."""
    loss: Literal["sl2", "cwd", "pkd", "logit"] = "sl2"
    """sl2: squared distance of projected student and teacher features, weighted by the teacher's class scores.
    cwd: divergence of each channel's spatial distribution. pkd: correlation of each channel. logit: cross-entropy of
    the class scores, without a projector."""
    terms: Annotated[list[Term], Field(max_length=8)] = []
    """Several losses with weights of their own, in place of loss and weight; each loss once. bckd and iou count as
    parts of the class and the box loss: they also have training.cls and training.box, and the weights of the head's
    branches."""
    projector: Literal["mlp", "linear"] = "mlp"
    """What maps the student's features to the teacher's channels, for losses on the neck. mlp: two 1x1 convolutions
    with a ReLU between them. linear: one."""
    share: Annotated[float, Field(gt=0, le=10)] | None = None
    """With terms: the norm of the gradient that the losses on the neck send into the student, as a share of the norm of
    the task's gradient there, on each level. It replaces the weight of these terms as a whole; their weights say how
    much each one counts among them. schedule and until let it end."""
    schedule: Literal["constant", "cosine", "stop"] = "constant"
    """How the weight changes. constant: it does not. cosine: it decreases to zero at `until`, or at the end of the
    training. stop: it is constant until `until`, then zero. From then on the teacher does not run."""
    until: Until | None = None
    """When the weight becomes zero. Required for stop, optional for cosine."""
    allow_cross_family: bool = False
    """Allow a teacher and a student of different YOLO families. Experimental."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        return check(self, DISTILLATION)

    @property
    def losses(self) -> list[str]:
        """Names of the losses; none if the only one has no weight."""
        return [term.loss for term in self.terms] or ([self.loss] if self.weight > 0 else [])
