"""Architectures and encoders of segmentation_models_pytorch, https://github.com/qubvel-org/segmentation_models.pytorch.

Every architecture takes every encoder that the library lets it have, those of timm too (by the name `tu-<timm name>`).
A pair that the library refuses is refused here by name, with encoders that work. Weights are never loaded at building:
`weights.py` does that, and says what it did.

Encoders that insist on one input size (most transformers) are asked to take any size; where they cannot, images are
padded to multiples of that size; where that fails too, the pair is refused. This is found out on torch's meta device,
which computes shapes but no numbers.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from segwright.errors import RecipeError, nearest
from segwright.models.deeplab import DeepLabV3Plus
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel

TIMM = "tu-"

_OURS = frozenset({"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs"})
_DILATED = frozenset({"deeplabv3", "deeplabv3plus", "pan"})
_NOT_DILATABLE = ("vgg", "densenet", "inception", "xception")
# They normalise features that are pooled to one pixel, so one image alone has no variance.
_POOL_GLOBALLY = frozenset({"pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet"})
# PAN pools its coarsest features three times more.
_MINIMUM_STEPS = {"pan": 8}
# DPT scales the features of a vision transformer to strides of its patch over 4 up to twice its patch.
_COARSER = {"dpt": 2}
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})
_VIT_EXAMPLES = (
    "tu-vit_tiny_patch16_224",
    "tu-vit_small_patch16_224",
    "tu-vit_base_patch16_224",
    "tu-deit3_small_patch16_224",
)
# What the library and timm raise for pairs and arguments that they do not take.
_REFUSALS = (
    ValueError,
    TypeError,
    KeyError,
    AssertionError,
    RuntimeError,
    NotImplementedError,
    AttributeError,
    IndexError,
)


def encoders_of(name: str) -> list[str]:
    """Encoders of the library that work with an architecture; those of timm come beside.

    Args:
        name: one of `LIBRARY`.
    """
    if name == "dpt":
        return list(_VIT_EXAMPLES)
    return [encoder for encoder in smp.encoders.get_encoder_names() if _is_known_to_work(name, encoder)]


def build_network(spec: ModelSpec, *, encoder_weights: str | None) -> tuple[nn.Module, InputSize]:
    """The library's own model, and the sides that it takes.

    Args:
        spec: with an encoder; its arguments are known to be arguments of the architecture.
        encoder_weights: None, or a name that the library loads or downloads itself.

    Raises:
        RecipeError: there is no such encoder, the pair does not work, or an argument is out of range.
    """
    encoder = _checked_encoder(spec)
    make = partial(_make, spec)
    extra: dict[str, Any] = {}
    fixed_side = _fixed_side(encoder)
    try:
        side = None
        if fixed_side is not None:
            extra, side = _any_size(make, spec, fixed_side=fixed_side)
        net = make(encoder_weights=encoder_weights, extra=extra)
    except _REFUSALS as error:
        if encoder_weights is not None:
            raise
        raise _refusal(spec, error) from error
    stride = side or _stride(spec, net)
    steps = 1 if side else _MINIMUM_STEPS.get(spec.name, 2)
    return net, InputSize(stride, minimum=steps * stride)


def build_encoder(spec: ModelSpec, *, encoder_weights: str | None = None, depth: int = 5) -> nn.Module:
    """The encoder alone, with features from stride 2 to 2**depth.

    Args:
        spec: with an encoder.
        encoder_weights: None, or a name that the library loads or downloads itself.
        depth: 1 to 5; many encoders keep coarser stages that nothing reads.

    Raises:
        RecipeError: there is no such encoder, or it does not give such features.
    """
    try:
        with _quiet():
            encoder: nn.Module = smp.encoders.get_encoder(
                _checked_encoder(spec), in_channels=spec.in_channels, depth=depth, weights=encoder_weights
            )
    except _REFUSALS as error:
        if encoder_weights is not None:
            raise
        raise _refusal(spec, error) from error
    return encoder


def _build(spec: ModelSpec) -> SegmentationModel:
    net, input_size = build_network(spec, encoder_weights=None)
    encoder = net.get_submodule("encoder")
    lone_image = spec.name not in _POOL_GLOBALLY
    return SegmentationModel(spec, net, encoder=encoder, input_size=input_size, lone_image=lone_image)


def _make(spec: ModelSpec, *, encoder_weights: str | None, extra: Mapping[str, Any]) -> Any:
    with _quiet():
        return _CLASSES[spec.name](
            encoder_name=spec.encoder,
            encoder_weights=encoder_weights,
            in_channels=spec.in_channels,
            classes=spec.num_classes,
            **spec.arguments,
            **extra,
        )


def _stride(spec: ModelSpec, net: Any) -> int:
    return int(net.encoder.output_stride) * _COARSER.get(spec.name, 1)


def _any_size(make: Callable[..., Any], spec: ModelSpec, *, fixed_side: int) -> tuple[dict[str, Any], int | None]:
    """How an encoder of a fixed input size is made to take others: more arguments, or multiples of its size."""
    fault: Exception | None = None
    for extra, side in ((_ANY_SIZE[0], None), (_ANY_SIZE[1], None), ({}, fixed_side)):
        try:
            with torch.device("meta"):
                net = make(encoder_weights=None, extra=extra).eval()
                step = side or _stride(spec, net)
                images = torch.empty(1, spec.in_channels, 2 * step, 3 * step)
            with torch.no_grad():
                logits = net(images)
            if logits.shape[-2:] == images.shape[-2:]:
                return extra, side
            fault = ValueError(f"it answers {tuple(logits.shape[-2:])} to images of {tuple(images.shape[-2:])}")
        except _REFUSALS as error:
            fault = error
    raise ValueError(f"it takes neither images of any size nor of multiples of {fixed_side}: {fault}") from fault


def _fixed_side(encoder: str) -> int | None:
    """The one side that an encoder of timm was made for, where it says that it insists on it."""
    if not encoder.startswith(TIMM):
        return None
    config = timm.models.get_pretrained_cfg(encoder.removeprefix(TIMM), allow_unregistered=True)
    if config is None or not config.fixed_input_size:
        return None
    return int(config.input_size[-1])


def _checked_encoder(spec: ModelSpec) -> str:
    encoder, usual = spec.encoder, smp.encoders.get_encoder_names()
    if encoder is None:
        raise RecipeError(f"model '{spec.name}' needs an encoder", mend="set model.encoder, such as resnet18")
    if encoder.startswith(TIMM):
        known = timm.is_model(encoder.removeprefix(TIMM).partition(".")[0])
    else:
        known = encoder in usual
    if not known:
        raise RecipeError(f"there is no encoder '{encoder}'", mend=_like(encoder, usual))
    if not _is_known_to_work(spec.name, encoder):
        raise _refusal(spec, None)
    return encoder


def _like(encoder: str, usual: list[str]) -> str:
    """The nearest of over a thousand names, not all of them."""
    menu = [*usual, *(TIMM + name for name in timm.list_models())]
    close = difflib.get_close_matches(encoder, menu, n=8, cutoff=0.5)
    close += [TIMM + encoder] if timm.is_model(encoder) else []
    return nearest(encoder, close or usual) + f", and {len(menu) - len(close or usual)} more"


def _is_known_to_work(name: str, encoder: str) -> bool:
    if name == "dpt":
        return encoder.startswith(TIMM)
    if name in _DILATED and encoder.startswith(_NOT_DILATABLE):
        return False
    return not (name in ("unetplusplus", "linknet") and encoder.startswith("mit_b"))


def _refusal(spec: ModelSpec, error: Exception | None) -> RecipeError:
    """The pair, unless it works without the arguments: then they are at fault."""
    why = f" ({error})" if error is not None and str(error) else ""
    if error is not None and spec.arguments:
        shown = ", ".join(f"{key}={value}" for key, value in spec.arguments.items())
        return RecipeError(
            f"model '{spec.name}' with encoder '{spec.encoder}' does not take {shown}{why}",
            mend="change or leave out model.arguments",
        )
    working = encoders_of(spec.name)
    beside = "" if spec.name == "dpt" else f", and most of timm as {TIMM}<name>"
    return RecipeError(
        f"model '{spec.name}' does not work with encoder '{spec.encoder}'{why}",
        mend=f"these work: {', '.join(working)}{beside}",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The library warns of old encoder names and of timm's ways, which its user cannot change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_CLASSES: dict[str, Callable[..., nn.Module]] = {
    "smp_unet": smp.Unet,
    "unetplusplus": smp.UnetPlusPlus,
    "manet": smp.MAnet,
    "linknet": smp.Linknet,
    "fpn": smp.FPN,
    "pspnet": smp.PSPNet,
    "deeplabv3": smp.DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "pan": smp.PAN,
    "upernet": smp.UPerNet,
    "segformer": smp.Segformer,
    "dpt": smp.DPT,
}


def _entry(name: str, *, paper: str, line: str) -> ModelEntry:
    parameters = inspect.signature(_CLASSES[name]).parameters.values()
    arguments = {parameter.name: parameter.default for parameter in parameters if parameter.name not in _OURS}
    return ModelEntry(build=_build, paper=paper, line=line, arguments=arguments, takes_encoder=True)


_LINES: dict[str, tuple[str, str]] = {
    "smp_unet": ("1505.04597", "U-Net decoder on an encoder: skips at every level"),
    "unetplusplus": ("1807.10165", "U-Net++: nested dense skips; slow, fine detail"),
    "manet": ("2009.02130", "MA-Net: U-Net with attention over positions and channels"),
    "linknet": ("1707.03718", "LinkNet: skips are added, not joined; fast and small"),
    "fpn": ("1612.03144", "feature pyramid: all levels summed at a quarter of the size; fast, a good first choice"),
    "pspnet": ("1612.01105", "pyramid of pooled context at an eighth; fastest, coarse borders"),
    "deeplabv3": ("1706.05587", "dilated encoder with atrous pyramid at an eighth; heavy"),
    "deeplabv3plus": ("1802.02611", "DeepLabV3 with one fine skip; strong on large scenes"),
    "pan": ("1805.10180", "pyramid attention; images are padded to at least 128 pixels"),
    "upernet": ("1807.10221", "pyramid pooling and feature pyramid together; usual with transformers"),
    "segformer": ("2105.15203", "all levels through one linear decoder; usual with mit encoders"),
    "dpt": ("2103.13413", "dense prediction on a vision transformer of timm"),
}

LIBRARY: dict[str, ModelEntry] = {
    name: _entry(name, paper=f"https://arxiv.org/abs/{number}", line=line) for name, (number, line) in _LINES.items()
}
