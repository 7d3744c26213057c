"""Chance in the network while it trains: dropout, its way over the budget, and stochastic depth.

Dropout: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html; of whole channels: Tompson et al. 2015,
https://arxiv.org/abs/1411.4280. With p the rate of a layer and u the spent share of the budget, the rate is p times

    constant   1
    rising     1 - exp(-10 u)    'Curriculum Dropout', Morerio et al. 2017, https://arxiv.org/abs/1703.06229
    falling    1 - u             'early dropout', Liu et al. 2023, https://arxiv.org/abs/2303.01500

Stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382) leaves out the branch of a residual block, sample
by sample; the l-th of L blocks with probability p l / L. None of this changes the names or the number of a model's
weights, and none of it is left in a bundle: it is built for prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, final

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import StochasticDepth

from segwright.errors import RecipeError, nearest
from segwright.models.segmenter import SegmentationModel

DropoutScheduleName = Literal["constant", "rising", "falling"]

_RISE = 10.0
_LAYERS = (nn.Dropout, nn.Dropout2d)
_HEADS = ("segmentation_head", "head")
_BRANCHES = ("drop_path", "drop_path1", "drop_path2")
_BEFORE, _AFTER = "dropout_before", "drop_path_after"
"""Names of what is added to a layer, which a hook of the layer calls."""

DROPOUT_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "rising": lambda progress: 1 - math.exp(-_RISE * progress),
    "falling": lambda progress: 1 - progress,
}


def set_dropout(model: SegmentationModel, rate: float) -> int:
    """Set the rate of a model's own dropout layers; where it has none, drop channels before its last convolution.

    Layers that were built with rate 0 are taken for none: transformers are full of them.

    Args:
        model: changed in place.
        rate: 0 to below 1.

    Returns:
        How many layers drop now.
    """
    layers = _dropouts(model)
    for layer in layers:
        layer.p = rate
    if layers or rate == 0:
        return len(layers)
    head = _last_convolution(model)
    # Within the convolution and called by a hook, so that names of weights stay as they are.
    head.add_module(_BEFORE, nn.Dropout2d(rate))
    head.register_forward_pre_hook(_drop_first)
    return 1


def _drop_first(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (layer.get_submodule(_BEFORE)(inputs[0]), *inputs[1:])


def _dropouts(model: nn.Module) -> list[nn.Dropout | nn.Dropout2d]:
    return [layer for layer in model.modules() if isinstance(layer, _LAYERS) and layer.p > 0]


def _last_convolution(model: SegmentationModel) -> nn.Conv2d:
    """That of the main head where one is named so; else the last with an output a class, or the last of all."""
    named = [getattr(model.net, name) for name in _HEADS if isinstance(getattr(model.net, name, None), nn.Module)]
    # Of several heads in a list the first is the main one.
    named = [part[0] if isinstance(part, nn.ModuleList) else part for part in named]
    layers = [layer for layer in (*named, model)[0].modules() if isinstance(layer, nn.Conv2d)]
    if not layers:
        raise RecipeError(
            f"model '{model.spec.name}' has no convolution to drop before", mend="leave model.dropout out"
        )
    heads = [layer for layer in layers if layer.out_channels == model.spec.num_classes]
    return (heads or layers)[-1]


@final
class ScheduledDropout(nn.Module):
    """Dropout whose rate is a tensor: it changes between steps, and a compiled network stays compiled.

    Args:
        p: the whole rate, 0 to 1.
        channels: drop whole channels.
    """

    keep: Tensor

    def __init__(self, p: float, *, channels: bool) -> None:
        super().__init__()
        # Some attention layers read `p` of a layer that they do not call: theirs stays whole.
        self.p, self.channels = p, channels
        # Not part of the state: the spent share of the budget brings it back.
        self.register_buffer("keep", torch.tensor(1 - p), persistent=False)

    def follow(self, factor: float) -> None:
        """Drop at `factor` times the whole rate from now on; a device is told without waiting for it."""
        self.keep.fill_(1 - factor * self.p)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        shape = (*x.shape[:2], *(1,) * (x.ndim - 2)) if self.channels else x.shape
        drawn = torch.bernoulli(self.keep.expand(shape))
        return x * (drawn / self.keep.clamp(min=torch.finfo(torch.float32).tiny)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p:g}, channels={self.channels}"


@final
class DropoutSchedule:
    """All dropout of a model on its way over the budget.

    Args:
        model: its dropout layers are replaced by `ScheduledDropout` ones.
        name: one of `DROPOUT_SCHEDULES`.

    Raises:
        RecipeError: there is no such schedule, or the model has no dropout that could follow it.
    """

    def __init__(self, model: SegmentationModel, name: DropoutScheduleName) -> None:
        if name not in DROPOUT_SCHEDULES:
            problem = f"there is no dropout schedule '{name}'"
            raise RecipeError(problem, mend=nearest(name, DROPOUT_SCHEDULES))
        self._factor = DROPOUT_SCHEDULES[name]
        self.layers: list[ScheduledDropout] = []
        if name == "constant":
            return
        for parent in list(model.modules()):
            for place, child in list(parent.named_children()):
                if isinstance(child, _LAYERS) and child.p > 0:
                    layer = ScheduledDropout(child.p, channels=isinstance(child, nn.Dropout2d)).train(child.training)
                    setattr(parent, place, layer)
                    self.layers.append(layer)
        if not self.layers:
            problem = f"dropout schedule '{name}' for model '{model.spec.name}', which has no dropout"
            raise RecipeError(problem, mend="set model.dropout, such as 0.2, or leave the schedule out")

    def follow(self, progress: float) -> None:
        """Set all rates for a spent share of the budget, 0..1."""
        factor = self._factor(progress)
        for layer in self.layers:
            layer.follow(factor)


def set_stochastic_depth(model: SegmentationModel, rate: float) -> int:
    """Leave out branches of residual blocks while training, the later the more often.

    Known are blocks of timm (`tu-` encoders), of mix transformers (`mit_`), of torchvision's residual networks, and our
    own residual blocks.

    Args:
        model: changed in place.
        rate: of the last block, 0 to below 1; 0 takes out what a model brings.

    Returns:
        How many blocks are concerned.

    Raises:
        RecipeError: the model has no block whose branch could be left out.
    """
    blocks = [block for block in model.modules() if isinstance(block, BasicBlock | Bottleneck) or _places(block)]
    if not blocks:
        if rate == 0:
            return 0
        encoder = f" with encoder '{model.spec.encoder}'" if model.spec.encoder else ""
        raise RecipeError(
            f"stochastic depth for model '{model.spec.name}'{encoder}, which has no residual block",
            mend="choose an encoder such as resnet18, resnext50_32x4d, mit_b0, tu-convnext_tiny or tu-resnet18, or "
            "leave model.stochastic_depth out",
        )
    for number, block in enumerate(blocks, start=1):
        _drop_branch(block, rate * number / len(blocks))
    return len(blocks)


def _places(block: nn.Module) -> list[str]:
    """Names under which a block keeps what may leave out a branch: empty, doing nothing, or at work."""
    named = [
        name
        for name in _BRANCHES
        if isinstance(getattr(block, name, ""), nn.Identity | DropPath | StochasticDepth | None)
    ]
    own = [name for name, child in block.named_children() if isinstance(child, StochasticDepth)]
    return [*named, *(name for name in own if name not in (*named, _AFTER))]


def _drop_branch(block: nn.Module, rate: float) -> None:
    for name in _places(block):
        setattr(block, name, StochasticDepth(rate, "row").train(block.training))
    if isinstance(block, BasicBlock | Bottleneck):
        # The branch ends in its last norm; the block adds what that gives to its input.
        last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
        if not hasattr(last, _AFTER):
            last.register_forward_hook(_drop_last)
        last.add_module(_AFTER, StochasticDepth(rate, "row").train(last.training))


def _drop_last(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    dropped: Tensor = layer.get_submodule(_AFTER)(output)
    return dropped
