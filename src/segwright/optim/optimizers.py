"""Optimisers by name.

SGD with momentum: Polyak 1964, Sutskever 2013, https://proceedings.mlr.press/v28/sutskever13.html (Nesterov's too).
Adam: Kingma and Ba 2015, https://arxiv.org/abs/1412.6980. AdamW: Loshchilov and Hutter 2019,
https://arxiv.org/abs/1711.05101. RMSprop: Hinton 2012, https://www.cs.toronto.edu/~hinton/coursera/lecture6/lec6.pdf.

In SGD, Adam and RMSprop weight decay is a penalty: it is added to the gradient. AdamW takes it from the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from segwright.errors import RecipeError, nearest

OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop"]
Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class OptimizerEntry:
    """A row of the table: `build` takes groups, momentum, nesterov and whether to use one kernel for all."""

    build: Callable[[Groups, float, bool, bool | None], torch.optim.Optimizer]
    line: str
    paper: str


@dataclass(frozen=True)
class OptimizerSettings:
    """How weights are moved.

    Attributes:
        name: one of `OPTIMIZERS`.
        lr: learning rate of all but the encoder.
        weight_decay: of kernels; see the file's head.
        encoder_lr_factor, layer_decay: see `parameter_groups`.
        momentum, nesterov: see `build_optimizer`.
        l2_convolutions: a penalty of this / 2 times the squares of all convolution kernels, whatever the optimiser.
    """

    name: OptimizerName
    lr: float
    weight_decay: float = 0.0
    encoder_lr_factor: float = 1.0
    layer_decay: float = 1.0
    momentum: float = 0.9
    nesterov: bool = False
    l2_convolutions: float = 0.0


OPTIMIZERS: dict[str, OptimizerEntry] = {
    "sgd": OptimizerEntry(
        lambda groups, momentum, nesterov, fused: torch.optim.SGD(
            groups, momentum=momentum, nesterov=nesterov, fused=fused
        ),
        line="stochastic gradient descent with momentum; wants a rate about 10 to 100 times that of AdamW",
        paper="https://proceedings.mlr.press/v28/sutskever13.html",
    ),
    "adam": OptimizerEntry(
        lambda groups, momentum, nesterov, fused: torch.optim.Adam(groups, fused=fused),
        line="steps of one size for every weight; weight decay as a penalty",
        paper="https://arxiv.org/abs/1412.6980",
    ),
    "adamw": OptimizerEntry(
        lambda groups, momentum, nesterov, fused: torch.optim.AdamW(groups, fused=fused),
        line="Adam with weight decay apart from the gradient: the usual choice",
        paper="https://arxiv.org/abs/1711.05101",
    ),
    "rmsprop": OptimizerEntry(
        lambda groups, momentum, nesterov, fused: torch.optim.RMSprop(groups, momentum=momentum),
        line="gradients divided by their recent size",
        paper="https://www.cs.toronto.edu/~hinton/coursera/lecture6/lec6.pdf",
    ),
}


def build_optimizer(
    name: OptimizerName, groups: Groups, *, fused: bool, momentum: float = 0.9, nesterov: bool = False
) -> torch.optim.Optimizer:
    """An optimiser over groups that bring their own learning rate and decay.

    Args:
        name: one of `OPTIMIZERS`.
        groups: from `parameter_groups`.
        fused: one kernel for all parameters, where the optimiser has one; needs float parameters on the CPU or a GPU.
        momentum: 0 to below 1; of sgd and rmsprop.
        nesterov: look ahead, for sgd.

    Raises:
        RecipeError: there is no such optimiser, or nesterov is asked for without momentum.
    """
    if name not in OPTIMIZERS:
        raise RecipeError(f"there is no optimiser '{name}'", mend=nearest(name, OPTIMIZERS))
    if nesterov and (name != "sgd" or momentum == 0):
        raise RecipeError(f"nesterov with {name} and momentum {momentum:g}", mend="it is for sgd with momentum above 0")
    # None leaves torch its own choice between loop and foreach.
    return OPTIMIZERS[name].build(groups, momentum, nesterov, fused or None)
