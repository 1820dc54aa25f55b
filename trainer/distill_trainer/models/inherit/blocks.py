"""How channels pass through the modules of backbone and neck: one rule for each class of Ultralytics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from ultralytics.nn.modules import block as blocks
from ultralytics.nn.modules import conv as convs

from distill_trainer.models.inherit.channels import (
    Channels,
    Group,
    NotSliceable,
    add,
    channels,
    concatenate,
    place,
    units,
)
from distill_trainer.models.inherit.trace import Rule, Trace


def counterparts(ours: int, theirs: int) -> list[int | None]:
    """For each of the student's repeated blocks the teacher's, evenly spaced from the first; None beyond its last."""
    if ours > theirs:
        return [*range(theirs), *[None] * (ours - theirs)]
    return [number * theirs // ours for number in range(ours)]


def conv(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels, out: Channels | None = None) -> Channels:
    """Convolution, BatchNorm, activation."""
    out = trace.convolution(f"{name}.conv", ours.conv, theirs.conv, given, out)
    trace.batchnorm(f"{name}.bn", ours.bn, theirs.bn, out)
    return out


def sequential(
    trace: Trace, name: str, ours: Any, theirs: Any, given: Channels, out: Channels | None = None
) -> Channels:
    """Modules one after another, in both models or as repeated blocks. `out`: the output of a last nn.Conv2d."""
    for number, counterpart in enumerate(counterparts(len(ours), len(theirs))):
        part, inner = ours[number], f"{name}.{number}"
        if counterpart is None:
            trace.left[inner] = "the teacher has fewer blocks"
            given = given if getattr(part, "add", False) else channels(given.student, given.teacher, new=True)
        elif out is not None and number == len(ours) - 1:
            given = trace.convolution(inner, part, theirs[counterpart], given, out)
        else:
            given = trace.module(inner, part, theirs[counterpart], given)
    return given


def _two_parts(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> tuple[Channels, Channels]:
    """A Conv whose output is split in two."""
    one, two = channels(ours.c, theirs.c), channels(ours.c, theirs.c)
    conv(trace, f"{name}.cv1", ours.cv1, theirs.cv1, given, concatenate([one, two]))
    return one, two


def _c2f(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    return _all_outputs(trace, name, ours, theirs, list(_two_parts(trace, name, ours, theirs, given)))


def _all_outputs(trace: Trace, name: str, ours: Any, theirs: Any, before: Sequence[Channels]) -> Channels:
    """Blocks one after another; the last Conv reads the parts `before` and the outputs of all blocks."""
    last, width = before[-1], before[-1].teacher
    parts = [(part, number * width) for number, part in enumerate(before)]
    widths = (last.student, width)
    for number, counterpart in enumerate(counterparts(len(ours.m), len(theirs.m))):
        inner = f"{name}.m.{number}"
        if counterpart is None:
            trace.left[inner] = "the teacher has fewer blocks"
            last = channels(*widths, new=True)
        else:
            last = trace.module_or(inner, ours.m[number], theirs.m[counterpart], last, lambda: widths)
        parts.append((last, (len(before) + (counterpart or 0)) * width))
    whole = place(parts, (len(before) + len(theirs.m)) * width)
    return conv(trace, f"{name}.cv2", ours.cv2, theirs.cv2, whole)


def _bottleneck(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    middle = trace.module(f"{name}.cv1", ours.cv1, theirs.cv1, given)
    return _residual(ours, theirs, given, conv(trace, f"{name}.cv2", ours.cv2, theirs.cv2, middle))


def _cib(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    return _residual(ours, theirs, given, sequential(trace, f"{name}.cv1", ours.cv1, theirs.cv1, given))


def _residual(ours: Any, theirs: Any, given: Channels, out: Channels) -> Channels:
    adds = bool(getattr(ours, "add", False))
    if adds != bool(getattr(theirs, "add", False)):
        raise NotSliceable("only one of the models adds its input to its output")
    return add(given, out) if adds else out


def _large_kernel(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    conv(trace, f"{name}.conv1", ours.conv1, theirs.conv1, given)
    return conv(trace, f"{name}.conv", ours.conv, theirs.conv, given)


def _c3(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    one = sequential(trace, f"{name}.m", ours.m, theirs.m, conv(trace, f"{name}.cv1", ours.cv1, theirs.cv1, given))
    two = conv(trace, f"{name}.cv2", ours.cv2, theirs.cv2, given)
    return conv(trace, f"{name}.cv3", ours.cv3, theirs.cv3, concatenate([one, two]))


def _pooled(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    pools = [len(m.m) if isinstance(m.m, nn.ModuleList) else getattr(m, "n", 3) for m in (ours, theirs)]
    if pools[0] != pools[1]:
        raise NotSliceable("it pools another number of times than the teacher's")
    first = conv(trace, f"{name}.cv1", ours.cv1, theirs.cv1, given)
    out = conv(trace, f"{name}.cv2", ours.cv2, theirs.cv2, concatenate([first] * (pools[0] + 1)))
    return _residual(ours, theirs, given, out)


def _down(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    return conv(trace, f"{name}.cv2", ours.cv2, theirs.cv2, conv(trace, f"{name}.cv1", ours.cv1, theirs.cv1, given))


def _elan(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    parts = list(_two_parts(trace, name, ours, theirs, given))
    for part in ("cv2", "cv3"):
        parts.append(trace.module(f"{name}.{part}", getattr(ours, part), getattr(theirs, part), parts[-1]))
    return conv(trace, f"{name}.cv4", ours.cv4, theirs.cv4, concatenate(parts))


def _pooled_elan(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    first = conv(trace, f"{name}.cv1", ours.cv1, theirs.cv1, given)
    return conv(trace, f"{name}.cv5", ours.cv5, theirs.cv5, concatenate([first] * 4))


def _rep_conv(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    out = conv(trace, f"{name}.conv1", ours.conv1, theirs.conv1, given)
    return add(out, conv(trace, f"{name}.conv2", ours.conv2, theirs.conv2, given))


def _averaged(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    return conv(trace, f"{name}.cv1", ours.cv1, theirs.cv1, given)


def _attention(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    """Whole heads: for each, qkv has its queries, keys and values in a row; pe and proj read the values."""
    sizes = [(model.head_dim, getattr(model, "key_dim", model.head_dim)) for model in (ours, theirs)]
    if sizes[0] != sizes[1]:
        raise NotSliceable(f"its attention heads have {sizes[0][0]} channels, the teacher's {sizes[1][0]}")
    heads = Group(ours.num_heads, theirs.num_heads)
    value, key = sizes[0]
    conv(trace, f"{name}.qkv", ours.qkv, theirs.qkv, given, units(heads, 2 * key + value))
    conv(trace, f"{name}.pe", ours.pe, theirs.pe, units(heads, value))
    return conv(trace, f"{name}.proj", ours.proj, theirs.proj, units(heads, value))


def _attend(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels, after: str) -> Channels:
    """Attention and then the layers `after` it, each added to its input."""
    widths = (given.student, given.teacher)
    attended = trace.module_or(f"{name}.attn", ours.attn, theirs.attn, given, lambda: widths)
    given = add(given, attended)
    return add(given, trace.module(f"{name}.{after}", getattr(ours, after), getattr(theirs, after), given))


def _psa_block(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    if not (ours.add and theirs.add):
        raise NotSliceable("its attention is not added to its input")
    return _attend(trace, name, ours, theirs, given, "ffn")


def _area_block(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    return _attend(trace, name, ours, theirs, given, "mlp")


def _psa(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    one, two = _two_parts(trace, name, ours, theirs, given)
    two = _attend(trace, name, ours, theirs, two, "ffn")
    return conv(trace, f"{name}.cv2", ours.cv2, theirs.cv2, concatenate([one, two]))


def _c2psa(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    one, two = _two_parts(trace, name, ours, theirs, given)
    two = sequential(trace, f"{name}.m", ours.m, theirs.m, two)
    return conv(trace, f"{name}.cv2", ours.cv2, theirs.cv2, concatenate([one, two]))


def _a2c2f(trace: Trace, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
    if (ours.gamma is None) != (theirs.gamma is None):
        raise NotSliceable("only one of the models adds its input to its output")
    first = conv(trace, f"{name}.cv1", ours.cv1, theirs.cv1, given)
    out = _all_outputs(trace, name, ours, theirs, [first])
    if ours.gamma is None:
        return out
    trace.parameter(f"{name}.gamma", ours.gamma, theirs.gamma, out)
    return add(given, out)


def _unchanged(_trace: Trace, _name: str, _ours: Any, _theirs: Any, given: Channels) -> Channels:
    return given


def _concat(_trace: Trace, _name: str, _ours: Any, _theirs: Any, given: Sequence[Channels]) -> Channels:
    return concatenate(given)


BLOCKS: Mapping[type, Rule] = {
    nn.Conv2d: Trace.convolution,
    nn.ConvTranspose2d: Trace.transposed,
    nn.Sequential: sequential,
    **dict.fromkeys((nn.Upsample, nn.Identity, nn.MaxPool2d, nn.SiLU), _unchanged),
    **dict.fromkeys((convs.Conv, convs.DWConv), conv),
    convs.Concat: _concat,
    **dict.fromkeys((blocks.C2f, blocks.C3k2, blocks.C2fCIB, blocks.C2fPSA), _c2f),
    **dict.fromkeys((blocks.C3, blocks.C3k, blocks.C3x, blocks.RepCSP), _c3),
    **dict.fromkeys((blocks.SPPF, blocks.SPP), _pooled),
    **dict.fromkeys((blocks.RepNCSPELAN4, blocks.ELAN1), _elan),
    blocks.SPPELAN: _pooled_elan,
    blocks.AConv: _averaged,
    convs.RepConv: _rep_conv,
    **dict.fromkeys((blocks.Bottleneck, blocks.RepBottleneck), _bottleneck),
    blocks.CIB: _cib,
    blocks.RepVGGDW: _large_kernel,
    blocks.SCDown: _down,
    **dict.fromkeys((blocks.Attention, blocks.AAttn), _attention),
    blocks.PSABlock: _psa_block,
    blocks.ABlock: _area_block,
    blocks.PSA: _psa,
    blocks.C2PSA: _c2psa,
    blocks.A2C2f: _a2c2f,
}
