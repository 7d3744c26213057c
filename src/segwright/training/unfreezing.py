"""An encoder that stands still at first and learns from some moment on.

A fresh decoder sends large, random gradients into pretrained weights; it is trained alone until it is of some use
(Howard and Ruder 2018, https://arxiv.org/abs/1801.06146; Kumar et al. 2022, https://arxiv.org/abs/2202.10054). The
optimiser holds all parameters from the beginning: those without a gradient are left out of a step, their decay too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from torch import nn

from segwright.models import SegmentationModel, freeze_encoder, unfreeze
from segwright.recipe import ModelRecipe
from segwright.tensors import Batch
from segwright.training.callbacks import epochs_done, ours


@dataclass(frozen=True)
class Thaw:
    """What stands still, and until when.

    Attributes:
        at: below 1 a share of the budget; from 1 on a number of epochs; None for ever.
        depth: what the feature of stride 2**depth is computed from; None for the whole encoder.
        statistics: whether batch norms keep their statistics: always, never, or (None) while they are frozen.
    """

    at: float | None
    depth: int | None
    statistics: bool | None


class Unfreezing(pl.Callback):
    """Freezes an encoder when the training starts, and lets it learn when the time has come.

    A run that goes on after that time does not freeze it again. By the clock the moment depends on the machine; in
    epochs and in shares of a budget of epochs it does not.

    Args:
        thaw: what stands still, and until when.
    """

    def __init__(self, thaw: Thaw) -> None:
        self._thaw = thaw
        self._done = False
        self._stopped: tuple[nn.Parameter, ...] = ()

    def state_dict(self) -> dict[str, Any]:
        return {"done": self._done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._done = bool(state_dict["done"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._done:
            model = ours(pl_module).model
            self._stopped = freeze(model, self._thaw)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if not self._done and self._is_due(trainer, pl_module):
            unfreeze(ours(pl_module).model, self._stopped, statistics=self._thaw.statistics is True)
            self._done = True

    def _is_due(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        assert self._thaw.at is not None, "what is frozen for ever needs no callback"
        if self._thaw.at >= 1:
            return epochs_done(trainer) >= self._thaw.at
        module = ours(pl_module)
        progress = module.budget.progress(trainer.global_step)
        return (progress if module.budget.seconds is None else module.team.agreed(progress)) >= self._thaw.at


def thaw_of(asked: ModelRecipe) -> Thaw | None:
    """What a recipe freezes; None where it freezes nothing."""
    if not asked.freeze_encoder:
        return None
    depth = None if asked.freeze_encoder is True else int(asked.freeze_encoder)
    return Thaw(at=asked.unfreeze_at, depth=depth, statistics=asked.freeze_statistics)


def unfreezing_of(asked: ModelRecipe) -> list[Unfreezing]:
    """The callback, where something is to learn later."""
    thaw = thaw_of(asked)
    return [] if thaw is None or thaw.at is None else [Unfreezing(thaw)]


def freeze(model: SegmentationModel, thaw: Thaw) -> tuple[nn.Parameter, ...]:
    """Freeze what stands still at first.

    Raises:
        RecipeError: the model has no encoder, or no feature of that depth.
    """
    return freeze_encoder(model, depth=thaw.depth, statistics=thaw.statistics is not False)
