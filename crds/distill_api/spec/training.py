"""spec.training: Ultralytics' own training arguments under their own names, typed so that the API server checks them.

Defaults are those of ultralytics 8.4.190 (its cfg/default.yaml); a test compares them. Arguments for where and on
what to run (device, project, name, resume and so on) are missing: nodes, accelerators and volumes replace them.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from distill_api.base import Model

Fraction = Annotated[float, Field(ge=0, le=1)]
Gain = Annotated[float, Field(ge=0)]


class Training(Model):
    """Hyperparameters of the training run, named as in Ultralytics."""

    model_config = ConfigDict(alias_generator=None)

    epochs: Annotated[int, Field(ge=1)] = 100
    """Number of epochs to train for."""
    batch: Annotated[int, Field(ge=1)] = 16
    """Global batch size: images per step over all ranks. Must be divisible by nodes times processes per node."""
    imgsz: Annotated[int, Field(ge=32)] = 640
    """Image size in pixels; rounded up to a multiple of the model's largest stride."""
    patience: Annotated[int, Field(ge=0)] = 100
    """Stop after this many epochs without a better validation fitness; 0 never stops early."""
    optimizer: Literal["auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp"] = "auto"
    """Optimizer; auto chooses optimizer and learning rate from the number of iterations, as Ultralytics does."""
    amp: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Precision of the student's forward pass. auto: on CUDA bf16, or fp16 with loss scaling before Ampere; fp32 on
    CPU; checkpoints keep what was chosen."""
    compile: bool = False
    """Compile the models with torch.compile. Slower to start."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of initialisation, data order and augmentation."""
    deterministic: bool = True
    """Use deterministic algorithms, so that a resumed run equals the uninterrupted one."""
    workers: Annotated[int, Field(ge=0)] = 8
    """Maximum data-loading processes per rank; never more than the CPUs that the container may use."""
    single_cls: bool = False
    """Treat all classes as one."""
    cos_lr: bool = False
    """Cosine learning-rate schedule instead of a linear one."""
    close_mosaic: Annotated[int, Field(ge=0)] = 10
    """Turn mosaic off for the last N epochs; 0 keeps it on."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the training images to use."""
    freeze: Annotated[int, Field(ge=0)] = 0
    """Freeze the student's first N layers."""
    pretrained: bool = True
    """Start from the weights of student.model when it is a .pt file; false keeps only its architecture."""
    multi_scale: Fraction = 0.0
    """Vary the image size by up to this fraction of imgsz."""
    overlap_mask: bool = True
    """Merge instance masks into one mask during training (segment)."""
    mask_ratio: Annotated[int, Field(ge=1)] = 4
    """Downsampling ratio of training masks (segment)."""
    val: bool = True
    """Validate during training; false validates only after the last epoch."""
    val_period: Annotated[int, Field(ge=1)] = 1
    """Validate after every N-th epoch, and always after the last one. Epochs between validations count for patience,
    but are not candidates for best.pt."""
    iou: Fraction = 0.7
    """IoU threshold of non-maximum suppression in validation."""
    nms: bool | None = None
    """How an end-to-end model is validated. false: with its one-to-one head and without non-maximum suppression, as it
    is deployed. Otherwise, as by default in Ultralytics, with its one-to-many head and non-maximum suppression."""
    max_det: Annotated[int, Field(ge=1)] = 300
    """Maximum detections per image in validation."""
    plots: bool = True
    """Plot result curves and validation pictures at the end."""
    lr0: Annotated[float, Field(gt=0)] = 0.01
    """Initial learning rate. Ignored when optimizer is auto."""
    lrf: Annotated[float, Field(gt=0)] = 0.01
    """Final learning rate as a fraction of lr0."""
    momentum: Fraction = 0.937
    """SGD momentum, or Adam's beta1."""
    weight_decay: Gain = 0.0005
    """Weight decay for a nominal batch of nbs images."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 3.0
    """Epochs of learning-rate warm-up; fractions are allowed."""
    warmup_momentum: Fraction = 0.8
    """Momentum at the start of the warm-up."""
    warmup_bias_lr: Gain = 0.1
    """Learning rate of biases at the start of the warm-up."""
    box: Gain = 7.5
    """Gain of the box loss."""
    cls: Gain = 0.5
    """Gain of the classification loss."""
    cls_pw: Fraction = 0.0
    """Power of class weights for unbalanced classes; 0 gives all classes the same weight."""
    dfl: Gain = 1.5
    """Gain of the distribution focal loss."""
    pose: Gain = 12.0
    """Gain of the keypoint loss (pose)."""
    kobj: Gain = 1.0
    """Gain of the keypoint objectness loss (pose)."""
    rle: Gain = 1.0
    """Gain of the residual log-likelihood loss (pose)."""
    angle: Gain = 1.0
    """Gain of the angle loss (obb)."""
    nbs: Annotated[int, Field(ge=1)] = 64
    """Nominal batch size: gradients accumulate over round(nbs / batch) steps."""
    hsv_h: Fraction = 0.015
    """Augmentation: hue, as a fraction."""
    hsv_s: Fraction = 0.7
    """Augmentation: saturation, as a fraction."""
    hsv_v: Fraction = 0.4
    """Augmentation: brightness, as a fraction."""
    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Augmentation: rotation in degrees, plus or minus."""
    translate: Fraction = 0.1
    """Augmentation: translation, as a fraction of the image."""
    scale: Fraction = 0.5
    """Augmentation: scale gain, plus or minus."""
    shear: Annotated[float, Field(ge=-180, le=180)] = 0.0
    """Augmentation: shear in degrees."""
    perspective: Annotated[float, Field(ge=0, le=0.001)] = 0.0
    """Augmentation: perspective."""
    flipud: Fraction = 0.0
    """Augmentation: probability of a vertical flip."""
    fliplr: Fraction = 0.5
    """Augmentation: probability of a horizontal flip."""
    bgr: Fraction = 0.0
    """Augmentation: probability of swapping RGB and BGR."""
    mosaic: Fraction = 1.0
    """Augmentation: probability of a mosaic of four images."""
    mixup: Fraction = 0.0
    """Augmentation: probability of mixing two images."""
    cutmix: Fraction = 0.0
    """Augmentation: probability of pasting a region of another image."""
    copy_paste: Fraction = 0.0
    """Augmentation: fraction of objects that are copied (segment, obb)."""
    copy_paste_mode: Literal["flip", "mixup"] = "flip"
    """How copy_paste chooses its source."""
