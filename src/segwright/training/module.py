"""The one LightningModule: a step, a validation, an optimiser. The rest is a callback, or plain code in `run.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from segwright.confusion import confusion_per_image
from segwright.losses import WeightedLoss
from segwright.losses.heads import HeadsLoss
from segwright.models import SegmentationModel
from segwright.optim import (
    OptimizerSettings,
    Plateau,
    ScheduleName,
    Shape,
    add_penalty,
    build_optimizer,
    convolution_weights,
    parameter_groups,
    schedule_factor,
)
from segwright.tensors import Batch, Logits
from segwright.training.averaging import Averaging, WeightAverage
from segwright.training.budget import Budget
from segwright.training.memory import Pieces
from segwright.training.processes import ALONE


class SegmentationModule(pl.LightningModule):
    """A model in training.

    Losses and counts stay on the device; callbacks read them now and then, so that no step waits for the host.

    Where the memory is too small for a batch, its images go through in pieces (`memory.py`); the step stays that of the
    whole batch.

    Args:
        model: what is trained; takes images as packed, gives (N, K, H, W) logits, or those of several heads.
        loss: on logits and masks.
        budget: tells the share that is spent, which the learning rate follows.
        optimizer: its name and numbers.
        schedule: name and numbers of the learning rate's way.
        plateau: drops the rate when validation stops rising; None for no such thing.
        averaging: which weights are averaged.
        followers: told the spent share of the budget before each step.
        compiled: compile the network's forward and backward pass.
        say: told when the images of a batch no longer go through together.

    Attributes:
        pieces: how many images go through together.
        first_bad_step: the first step whose loss was no number; -1 while there is none.
        team: the processes that train the model together.
    """

    def __init__(
        self,
        model: SegmentationModel,
        *,
        loss: WeightedLoss | HeadsLoss,
        budget: Budget,
        optimizer: OptimizerSettings,
        schedule: tuple[ScheduleName, Shape],
        plateau: Plateau | None = None,
        averaging: Averaging,
        followers: Sequence[Callable[[float], None]] = (),
        compiled: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.average = None if averaging.name == "none" else WeightAverage(model, rule=averaging)
        self._followers = tuple(followers)
        self.budget = budget
        # Compiled in place: names of parameters stay as they are.
        if compiled:
            model.compile()
        self.team = ALONE
        self._optimizer = optimizer
        self._schedule = schedule
        self.plateau = plateau
        self.pieces = Pieces(say)
        self._step_loss: Tensor | None = None
        self._updating = False
        num_classes = model.spec.num_classes
        self.train_loss: Tensor
        self.confusion: Tensor
        self.val_loss: Tensor
        self.first_bad_step: Tensor
        self.register_buffer("train_loss", torch.zeros(()), persistent=False)
        self.register_buffer("val_loss", torch.zeros(()), persistent=False)
        self.register_buffer("first_bad_step", torch.tensor(-1), persistent=False)
        self.register_buffer("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), persistent=False)

    @property
    def best(self) -> SegmentationModel:
        """What is validated and kept: the average as soon as there is one."""
        if self.average is None or not self.average.exists:
            return self.model
        averaged = self.average.model
        assert isinstance(averaged, SegmentationModel)
        return averaged

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Logits | tuple[Tensor, ...]:
        given = (images,) if masks is None else (images, masks)
        logits: Logits | tuple[Tensor, ...] = self.model(*given)
        return logits

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        assert batch.masks is not None, "training batches are labelled"
        truth = batch.masks if self.model.takes_masks else None
        logits = self.pieces.logits("training", self, batch.images, truth)
        loss: Tensor = self.loss(logits, batch.masks, total=self.team.summed if self.team.size > 1 else None)
        self._step_loss = loss.detach()
        return loss

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Forward, backward and update; again with smaller pieces where the memory was not enough."""
        self._updating = False
        while not self.pieces.fit(
            "training", lambda: optimizer.step(closure=optimizer_closure), bar=self._why_not_again
        ):
            self._step_loss = None
            self.zero_grad(set_to_none=True)
            self.pieces.free_memory()
        assert self._step_loss is not None, "the closure has run"
        self.team.average_statistics(self.model)
        # Some losses are those of this process's part: a NaN of one process is one of all.
        loss = self.team.summed(self._step_loss) / self.team.size
        self.train_loss += loss
        bad = ~torch.isfinite(loss) & (self.first_bad_step < 0)
        self.first_bad_step.masked_fill_(bad, self.global_step + 1)
        if self.average is not None:
            done = self.global_step + 1
            progress = 0.0 if self.average.rule.name == "moving" else self._progress(done)
            self.average.follow(self.model, step=done, progress=progress)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self._updating = True
        if self._optimizer.l2_convolutions > 0:
            add_penalty(convolution_weights(self.model), l2=self._optimizer.l2_convolutions)

    def _why_not_again(self) -> str | None:
        """What keeps a step from being tried again; None where nothing does."""
        if self._updating:
            return "the memory is not enough for the optimiser's own numbers"
        if self.team.size > 1:
            # The others are in the middle of this step, and cannot begin it again.
            return f"the memory of process {self.team.rank} is not enough for its part of a batch"
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["at_once"] = dict(self.pieces.at_once)
        if self.plateau is not None:
            checkpoint["plateau"] = self.plateau.state_dict()
        if self.average is not None:
            checkpoint["average"] = self.average.numbers()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.pieces.resume(checkpoint.get("at_once", {}))
        if self.plateau is not None and "plateau" in checkpoint:
            self.plateau.load_state_dict(checkpoint["plateau"])
        if self.average is not None and "average" in checkpoint:
            self.average.go_on(checkpoint["average"])

    def on_validation_epoch_start(self) -> None:
        if self.average is not None and self.average.rule.name == "cycles" and self.trainer.should_stop:
            # The clock stops the last cycle a little before its end, to leave time for this validation.
            self.average.take(self.model, step=self.global_step)
        self.confusion.zero_()
        self.val_loss.zero_()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        while not self.pieces.fit("validation", lambda: self._score(batch)):
            self.pieces.free_memory()

    def _score(self, batch: Batch) -> None:
        assert batch.masks is not None, "validation batches are labelled"
        logits = self.pieces.logits("validation", self.best, batch.images)
        assert isinstance(logits, Tensor), "a model that does not train answers with its main head"
        loss = self.loss(logits, batch.masks) * batch.weight
        counts = confusion_per_image(logits.argmax(1), batch.masks, num_classes=self.model.spec.num_classes)
        self.val_loss += loss
        self.confusion += counts.sum(0)

    def on_validation_epoch_end(self) -> None:
        self.confusion.copy_(self.team.summed(self.confusion))
        self.val_loss.copy_(self.team.summed(self.val_loss))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        asked = self._optimizer
        groups = parameter_groups(
            self.model,
            encoder=self.model.encoder,
            lr=asked.lr,
            weight_decay=asked.weight_decay,
            encoder_lr_factor=asked.encoder_lr_factor,
            layer_decay=asked.layer_decay,
        )
        # Scaled fp16 gradients must be unscaled before they are clipped, which the fused kernel would do a second time.
        fused = self.device.type in ("cpu", "cuda") and str(self.trainer.precision) != "16-mixed"
        optimizer = build_optimizer(asked.name, groups, fused=fused, momentum=asked.momentum, nesterov=asked.nesterov)
        # The rate of the next step follows from the first one.
        followed = ("params", "lr")
        self._asked_of_groups = [
            {key: value for key, value in group.items() if key not in followed} for group in optimizer.param_groups
        ]
        return optimizer

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By the norm of all gradients; Lightning refuses that with fused optimisers, though nothing is scaled here."""
        if gradient_clip_val is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    def on_train_start(self) -> None:
        self.team.copy_buffers(self)
        # A state brings the settings back that it was saved with; those of the recipe may have been changed since.
        for group, asked in zip(self.trainer.optimizers[0].param_groups, self._asked_of_groups, strict=True):
            group.update(asked)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        name, shape = self._schedule
        progress = self._progress(self.global_step)
        self.loss.progress = progress
        for follow in self._followers:
            follow(progress)
        factor = schedule_factor(name, progress, shape=shape) * (1.0 if self.plateau is None else self.plateau.factor)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * factor

    def _progress(self, step: int) -> float:
        """The spent share of the budget after so many steps, the same in all processes."""
        progress = self.budget.progress(step)
        return progress if self.budget.seconds is None else self.team.agreed(progress)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Loaders put batches on the device themselves."""
        return batch
