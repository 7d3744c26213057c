"""A forward pass in pieces, for batches that the memory is too small for.

The loss of a step is that of its whole batch, so pieces cannot be learnt from one after another: Dice of a batch is no
mean of the Dice of its parts. So each piece is computed without keeping what its backward pass needs, the loss is taken
of all logits together, and the backward pass computes one piece after the other again (gradient checkpointing, Chen et
al. 2016, https://arxiv.org/abs/1604.06174; for batches: Gao et al. 2021, https://arxiv.org/abs/2101.06983). Loss and
gradients are those of the undivided batch, and autograd adds them up, so that scaling, clipping and averaging see one
step as ever. It costs one more forward pass.

What does change is batch normalisation: it takes its statistics of the images that go through together.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from segwright.errors import TrainingError
from segwright.hardware import give_back_freed_memory, is_out_of_memory
from segwright.tensors import Images, Logits, Masks

SMALLER = (
    "set a smaller augment.crop_px or data.working_size_px, a smaller model or encoder, or training.precision=bf16"
)
"""What helps where the memory is not enough even for one image."""


def in_pieces(
    model: nn.Module, images: Images, masks: Masks | None = None, *, at_once: int | None
) -> Logits | tuple[Tensor, ...]:
    """Logits of a batch, of which at most `at_once` images go through the network together; None for all.

    A model with several heads gives a tuple of theirs.

    Args:
        model: images to logits.
        images: (N, C, H, W).
        masks: the truth, for models that learn from it; others are not given it.
        at_once: at least 1; pieces are of equal size, or differ by one image.
    """
    if at_once is None or at_once >= len(images):
        whole: Tensor | tuple[Tensor, ...] = model(images) if masks is None else model(images, masks)
        return whole
    count = math.ceil(len(images) / at_once)
    parts: list[tuple[Tensor, ...]] = [(piece,) for piece in images.tensor_split(count)]
    if masks is not None:
        parts = list(zip(images.tensor_split(count), masks.tensor_split(count), strict=True))
    if not torch.is_grad_enabled():
        return _joined([model(*part) for part in parts])

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_untouched(model)

    return _joined([checkpoint(model, *part, use_reentrant=False, context_fn=contexts) for part in parts])


def _joined(answers: Sequence[Tensor | tuple[Tensor, ...]]) -> Tensor | tuple[Tensor, ...]:
    """Pieces of a batch as the batch, head by head."""
    heads = [answer if isinstance(answer, tuple) else (answer,) for answer in answers]
    joined = tuple(torch.cat(pieces) for pieces in zip(*heads, strict=True))
    return joined if isinstance(answers[0], tuple) else joined[0]


@contextmanager
def _statistics_untouched(model: nn.Module) -> Iterator[None]:
    """A second pass over the same images must not move the running statistics a second time."""
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.training]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        # Not `track_running_stats`: the second pass must save the same tensors as the first.
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)


Work = Literal["training", "validation"]


@final
class Pieces:
    """How many images of a batch go through a network together: all, or half as many after each failure.

    Args:
        say: told when there are fewer.

    Attributes:
        at_once: images in training and in validation; None for whole batches.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._images = 0
        self._model: nn.Module | None = None
        self.at_once: dict[Work, int | None] = {"training": None, "validation": None}

    def logits(
        self, work: Work, model: nn.Module, images: Images, masks: Masks | None = None
    ) -> Logits | tuple[Tensor, ...]:
        """Logits of a batch, in pieces where it has to be."""
        self._images, self._model = len(images), model
        return in_pieces(model, images, masks, at_once=self.at_once[work])

    def fit(self, work: Work, task: Callable[[], object], *, bar: Callable[[], str | None] = lambda: None) -> bool:
        """Do a task that calls `logits`; False where the memory was not enough, and smaller pieces are to be tried.

        Args:
            work: whose pieces become smaller.
            task: may fail anywhere.
            bar: says after a failure why the task cannot be tried again; None where it can.

        Raises:
            TrainingError: the memory is not enough for one image, or the task is barred.
        """
        try:
            task()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        else:
            return True
        # Outside of `except`: the error holds on to what the failed try has computed.
        self._halve(work, reason=reason, barred=bar())
        return False

    def _halve(self, work: Work, *, reason: str, barred: str | None) -> None:
        before = self.at_once[work] or self._images
        if barred is not None:
            raise TrainingError(barred, mend=f"set a smaller training.batch_size; {SMALLER}")
        if before == 1:
            raise TrainingError(f"the memory is not enough for one image ({reason[:160]})", mend=SMALLER)
        self.at_once[work] = (before + 1) // 2
        parts = () if self._model is None else self._model.modules()
        normalizes = any(isinstance(part, _BatchNorm) and part.training for part in parts)
        norms = ", but batch norms see fewer images" if normalizes else ""
        self._say(
            f"out of memory with {before} images at once: {work} goes on with {self.at_once[work]}; "
            f"steps and batches stay what they are{norms}"
        )

    def resume(self, at_once: Mapping[Work, int | None]) -> None:
        """Go on with pieces of the size that fitted before."""
        self.at_once |= at_once
        for work, images in self.at_once.items():
            if images is not None:
                self._say(f"memory   {work} goes on with {images} images at once, as before")

    def free_memory(self) -> None:
        """Give back what a failed try has left."""
        gc.collect()
        give_back_freed_memory()
