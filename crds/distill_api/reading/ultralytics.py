"""What Ultralytics' users write by habit, and where a job has it instead."""

from __future__ import annotations

from collections.abc import Mapping

ELSEWHERE: Mapping[str, str] = {
    "model": "spec.student.model",
    "data": "spec.dataset.config",
    "distill_model": "spec.teacher.model",
    "dis": "spec.distillation.weight",
    "name": "metadata.name",
    "project": "spec.volumes.checkpoints",
    "save_period": "spec.checkpoint.intervalSeconds",
    "format": "spec.export",
    "dynamic": "spec.export",
    "simplify": "spec.export",
}
"""Arguments that a job has in another place and under another name."""

_PREDICTION = (
    "augment agnostic_nms conf dnn embed line_width quantize retina_masks save_conf save_crop save_frames save_txt show"
    " show_boxes show_conf show_labels source stream_buffer tracker vid_stride visualize"
)
_BY_REASON: Mapping[str, str] = {
    "time": "how far it comes would depend on machine and disruptions; set epochs, and spec.activeDeadlineSeconds as"
    " the limit of the whole job",
    "device": "a job has spec.nodes with spec.accelerators.perNode GPUs each; spec.device: cpu trains on CPUs",
    "resume": "every attempt resumes from the newest checkpoint, so there is nothing to set",
    "exist_ok": "a job writes to the folder of its name, and refuses the checkpoints of another job there",
    "task": "the task follows from the model",
    "cache": "images are read from the volume; spec.dataCache keeps copies of them on each node",
    "rect": "training shuffles images into square batches; validation is rectangular, as in Ultralytics",
    "save save_json verbose profile mode cfg": "what a run writes is fixed",
    "split": "the student is validated on the data set's val images",
    "classes": "the data set's YAML file decides the classes",
    "channels_last cls_remap": "it is always on",
    _PREDICTION: 'it is for prediction; use YOLO("best.pt") with the weights of the run',
    "optimize opset workspace": 'for exports that spec.export does not have, use YOLO("best.pt").export()',
    "dropout auto_augment erasing dlog dgrad dlam": "it is for classification or depth, which are not trained here",
}
NOWHERE: Mapping[str, str] = {name: reason for names, reason in _BY_REASON.items() for name in names.split()}
"""Arguments that a job has not, and why, or what to do instead."""

VALUES: Mapping[tuple[str, type], str] = {
    ("amp", bool): "Ultralytics' true is auto, and false is fp32",
    ("batch", int): "it is the global batch, and a size that is found by trying would depend on the machine",
    ("freeze", list): "it is how many layers are frozen, from the first on",
    ("pretrained", str): "weights are a .pt file in spec.student.model",
}
"""What to write for a value, by its type, that Ultralytics takes for a training argument and a job does not."""
