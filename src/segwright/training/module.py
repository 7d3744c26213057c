"""The one LightningModule: a step, a validation, an optimiser. The rest is a callback, or plain code in `run.py`."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from segwright.losses import WeightedLoss
from segwright.metrics import confusion_per_image
from segwright.models import SegmentationModel
from segwright.optim import OptimizerName, ScheduleName, build_optimizer, parameter_groups, schedule_factor
from segwright.training.averaging import WeightAverage
from segwright.training.budget import Budget
from segwright.types import Batch, Logits


class SegmentationModule(pl.LightningModule):
    """A model in training.

    Losses and counts stay on the device; callbacks read them now and then, so that no step waits for the host.

    Args:
        model: what is trained; takes images as packed, gives (N, K, H, W) logits.
        loss: on logits and masks.
        budget: tells the share that is spent, which the learning rate follows.
        optimizer: name, lr, weight_decay and encoder_lr_factor.
        schedule: name, warmup and final_factor.
        ema: decay of the weight average; 0 for none.
        compiled: compile the network's forward and backward pass.
    """

    def __init__(
        self,
        model: SegmentationModel,
        *,
        loss: WeightedLoss,
        budget: Budget,
        optimizer: tuple[OptimizerName, float, float, float],
        schedule: tuple[ScheduleName, float, float],
        ema: float,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.average = WeightAverage(model, decay=ema) if ema > 0 else None
        self.budget = budget
        # Compiled in place: names of parameters stay as they are.
        if compiled:
            model.compile()
        self._optimizer = optimizer
        self._schedule = schedule
        num_classes = model.spec.num_classes
        self.train_loss: Tensor
        self.confusion: Tensor
        self.val_loss: Tensor
        self.register_buffer("train_loss", torch.zeros(()), persistent=False)
        self.register_buffer("val_loss", torch.zeros(()), persistent=False)
        self.register_buffer("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), persistent=False)

    @property
    def best(self) -> SegmentationModel:
        """What is validated and kept: the average where there is one."""
        if self.average is None:
            return self.model
        averaged = self.average.model
        assert isinstance(averaged, SegmentationModel)
        return averaged

    def forward(self, images: Tensor) -> Logits:
        logits: Logits = self.model(images)
        return logits

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        assert batch.masks is not None, "training batches are labelled"
        loss: Tensor = self.loss(self(batch.images), batch.masks)
        self.train_loss += loss.detach()
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.average is not None:
            self.average.update(self.model, step=self.global_step)

    def on_validation_epoch_start(self) -> None:
        self.confusion.zero_()
        self.val_loss.zero_()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        assert batch.masks is not None, "validation batches are labelled"
        logits = self.best(batch.images)
        self.val_loss += self.loss(logits, batch.masks) * len(batch.images)
        counts = confusion_per_image(logits.argmax(1), batch.masks, num_classes=self.model.spec.num_classes)
        self.confusion += counts.sum(0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        name, lr, weight_decay, encoder_lr_factor = self._optimizer
        groups = parameter_groups(
            self.model,
            encoder=self.model.encoder,
            lr=lr,
            weight_decay=weight_decay,
            encoder_lr_factor=encoder_lr_factor,
        )
        # Scaled fp16 gradients must be unscaled before they are clipped, which the fused kernel would do a second time.
        fused = self.device.type in ("cpu", "cuda") and str(self.trainer.precision) != "16-mixed"
        return build_optimizer(name, groups, fused=fused)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By the norm of all gradients; Lightning refuses that with fused optimisers, though nothing is scaled here."""
        if gradient_clip_val is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        name, warmup, final_factor = self._schedule
        progress = self.budget.progress(self.global_step)
        factor = schedule_factor(name, progress, warmup=warmup, final_factor=final_factor)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * factor

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Loaders put batches on the device themselves."""
        return batch
