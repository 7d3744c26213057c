"""A validation: the model as it would be kept, on every validation image once."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as pl
import torch

from segwright.data.eval_loader import EvalLoader
from segwright.training.module import SegmentationModule


class Validation:
    """Fills the counts and the loss of a module.

    It is no loop of Lightning's, so that a state can be saved in its middle: it draws no chance and changes no weight,
    and a resumed run begins it anew.

    Args:
        loader: the labelled validation images.
        stop: asked after each batch; true leaves the validation.
    """

    def __init__(self, loader: EvalLoader, *, stop: Callable[[], bool]) -> None:
        self._loader, self._stop = loader, stop
        self.images = loader.count

    def run(self, trainer: pl.Trainer, module: SegmentationModule) -> bool:
        """Go through all images; False where it was left before the end."""
        module.zero_grad(set_to_none=True)  # their memory is better used
        module.eval()
        try:
            with trainer.precision_plugin.val_step_context(), torch.no_grad():
                module.on_validation_epoch_start()
                for number, batch in enumerate(self._loader):
                    module.validation_step(batch, number)
                    if self._stop():
                        return False
                module.on_validation_epoch_end()
        finally:
            module.train()
        return True
