"""How channels pass through the heads: boxes, classes, masks, keypoints and angles, in both branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ultralytics.nn.modules import block as blocks
from ultralytics.nn.modules import head as heads

from distill_trainer.models.inherit.blocks import conv, sequential
from distill_trainer.models.inherit.channels import Channels, add, channels
from distill_trainer.models.inherit.trace import Rule, Trace

Levels = Sequence[Channels]


def _detect(trace: Trace, name: str, ours: Any, theirs: Any, given: Levels) -> Channels:
    for branch in _branches(ours, theirs):
        for part in ("cv2", "cv3"):
            _outputs(trace, f"{name}.{branch}{part}", ours, theirs, branch + part, given)
    trace.whole(f"{name}.dfl", ours.dfl, theirs.dfl)
    return channels(0, 0)


def _extra_outputs(trace: Trace, name: str, ours: Any, theirs: Any, given: Levels) -> Channels:
    for branch in _branches(ours, theirs):
        _outputs(trace, f"{name}.{branch}cv4", ours, theirs, f"{branch}cv4", given)
    return _detect(trace, name, ours, theirs, given)


def _segment(trace: Trace, name: str, ours: Any, theirs: Any, given: Levels) -> Channels:
    first = given[0] if isinstance(ours, heads.Segment) and not isinstance(ours, heads.Segment26) else given
    trace.module_or(f"{name}.proto", ours.proto, theirs.proto, first, lambda: (ours.nm, theirs.nm))
    return _extra_outputs(trace, name, ours, theirs, given)


def _pose26(trace: Trace, name: str, ours: Any, theirs: Any, given: Levels) -> Channels:
    for branch in _branches(ours, theirs):
        parts = [f"{branch}cv4", f"{branch}cv4_kpts", f"{branch}cv4_sigma"]
        for level, feature in enumerate(given):
            our, their = ([getattr(head, part)[level] for part in parts] for head in (ours, theirs))
            hidden = sequential(trace, f"{name}.{parts[0]}.{level}", our[0], their[0], feature)
            for part, mine, other in zip(parts[1:], our[1:], their[1:], strict=True):
                _last(trace, f"{name}.{part}.{level}", mine, other, hidden)
    trace.whole(f"{name}.flow_model", ours.flow_model, theirs.flow_model)
    return _detect(trace, name, ours, theirs, given)


def _proto(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    hidden = conv(trace, f"{name}.cv1", ours.cv1, theirs.cv1, given)
    hidden = trace.transposed(f"{name}.upsample", ours.upsample, theirs.upsample, hidden)
    hidden = conv(trace, f"{name}.cv2", ours.cv2, theirs.cv2, hidden)
    return conv(trace, f"{name}.cv3", ours.cv3, theirs.cv3, hidden, _same(ours.cv3.conv, theirs.cv3.conv))


def _proto26(trace: Trace, name: str, ours: Any, theirs: Any, given: Levels) -> Channels:
    fused = given[0]
    for number, feature in enumerate(given[1:]):
        inner = f"{name}.feat_refine.{number}"
        fused = add(fused, conv(trace, inner, ours.feat_refine[number], theirs.feat_refine[number], feature))
    if ours.semseg is not None and theirs.semseg is not None:
        last = _same(ours.semseg[-1], theirs.semseg[-1])
        sequential(trace, f"{name}.semseg", ours.semseg, theirs.semseg, fused, last)
    hidden = conv(trace, f"{name}.feat_fuse", ours.feat_fuse, theirs.feat_fuse, fused)
    return _proto(trace, name, ours, theirs, hidden)


def _branches(ours: Any, theirs: Any) -> list[str]:
    """Prefixes of the branches that both heads have."""
    return [
        prefix
        for prefix in ("", "one2one_")
        if all(getattr(head, f"{prefix}cv2", None) is not None for head in (ours, theirs))
    ]


def _outputs(trace: Trace, name: str, ours: Any, theirs: Any, part: str, given: Levels) -> None:
    """A part of the head with a Sequential for each level that ends in an nn.Conv2d."""
    for level, feature in enumerate(given):
        our, their = getattr(ours, part)[level], getattr(theirs, part)[level]
        sequential(trace, f"{name}.{level}", our, their, feature, _same(our[-1], their[-1]))


def _last(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> None:
    trace.convolution(name, ours, theirs, given, _same(ours, theirs))


def _same(ours: Any, theirs: Any) -> Channels:
    """Outputs whose order has a meaning: they are inherited only if both models have as many."""
    return channels(ours.out_channels, theirs.out_channels, ordered=True)


HEADS: Mapping[type, Rule] = {
    **dict.fromkeys((heads.Detect, heads.v10Detect), _detect),
    **dict.fromkeys((heads.Segment, heads.Segment26), _segment),
    **dict.fromkeys((heads.OBB, heads.OBB26, heads.Pose), _extra_outputs),
    heads.Pose26: _pose26,
    blocks.Proto: _proto,
    blocks.Proto26: _proto26,
}
