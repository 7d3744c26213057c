"""How weights are drawn before the first step, where they are not loaded.

With f_in inputs that one output sums over, f_out outputs that one input reaches, and g = sqrt(2) for ReLU:

    default      as each model draws its own weights
    xavier       uniform in +-sqrt(6 / (f_in + f_out))      Glorot and Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html
    kaiming      normal, standard deviation g / sqrt(f_in)  He et al. 2015, https://arxiv.org/abs/1502.01852
    orthogonal   orthogonal rows or columns, times g        Saxe et al. 2014, https://arxiv.org/abs/1312.6120

Kernels of convolutions and linear layers are drawn, and their biases set to 0; norms and embeddings stay as they are. A
step of s pixels of a transposed convolution shares its kernel among s^2 outputs, so f_in is that much smaller there;
groups divide both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from segwright.errors import RecipeError, nearest

InitializationName = Literal["default", "xavier", "kaiming", "orthogonal"]

RELU_GAIN = math.sqrt(2)
_KINDS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_Kernel = nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear


@dataclass(frozen=True)
class InitializationEntry:
    """A row of the table: `draw` sets a weight, given f_in, f_out and a generator."""

    draw: Callable[[Tensor, float, float, torch.Generator], object]
    line: str
    paper: str


def _xavier(weight: Tensor, fan_in: float, fan_out: float, generator: torch.Generator) -> None:
    bound = math.sqrt(6 / (fan_in + fan_out))
    weight.uniform_(-bound, bound, generator=generator)


def _kaiming(weight: Tensor, fan_in: float, fan_out: float, generator: torch.Generator) -> None:
    weight.normal_(0.0, RELU_GAIN / math.sqrt(fan_in), generator=generator)


def _orthogonal(weight: Tensor, fan_in: float, fan_out: float, generator: torch.Generator) -> None:
    nn.init.orthogonal_(weight, gain=RELU_GAIN, generator=generator)


INITIALIZATIONS: dict[str, InitializationEntry] = {
    "xavier": InitializationEntry(
        _xavier,
        line="uniform; keeps the size of signals and gradients of nearly linear layers",
        paper="https://proceedings.mlr.press/v9/glorot10a.html",
    ),
    "kaiming": InitializationEntry(
        _kaiming, line="normal; keeps the size of signals through ReLU", paper="https://arxiv.org/abs/1502.01852"
    ),
    "orthogonal": InitializationEntry(
        _orthogonal,
        line="a rotation: no direction is lost from layer to layer",
        paper="https://arxiv.org/abs/1312.6120",
    ),
}


@torch.no_grad()
def draw_weights(model: nn.Module, name: InitializationName, *, seed: int, keep: nn.Module | None = None) -> int:
    """Draw the kernels of a model anew; the same seed gives the same weights.

    Args:
        model: on the CPU.
        name: a row of `INITIALIZATIONS`, or `default`, which changes nothing.
        seed: of a generator of its own: no other chance is touched.
        keep: a part whose weights were loaded, and stay.

    Returns:
        How many layers were drawn.

    Raises:
        RecipeError: there is no such initialisation.
    """
    if name == "default":
        return 0
    if name not in INITIALIZATIONS:
        raise RecipeError(f"there is no initialisation '{name}'", mend=nearest(name, ("default", *INITIALIZATIONS)))
    generator = torch.Generator().manual_seed(seed)
    kept = set() if keep is None else {id(layer) for layer in keep.modules()}
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, _KINDS) and id(layer) not in kept and not getattr(layer, "starts_silent", False)
    ]
    for layer in layers:
        INITIALIZATIONS[name].draw(layer.weight, *fans(layer), generator)
        if layer.bias is not None:
            layer.bias.zero_()
    return len(layers)


def fans(layer: _Kernel) -> tuple[float, float]:
    """Inputs that one output sums over, and outputs that one input reaches.

    >>> fans(nn.Conv2d(8, 16, 3))
    (72.0, 144.0)
    """
    if isinstance(layer, nn.Linear):
        return float(layer.in_features), float(layer.out_features)
    size = math.prod(layer.kernel_size) / layer.groups
    steps = math.prod(layer.stride)
    fan_in, fan_out = layer.in_channels * size, layer.out_channels * size
    return (fan_in / steps, fan_out) if isinstance(layer, nn.ConvTranspose2d) else (fan_in, fan_out / steps)
