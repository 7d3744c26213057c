"""The loss of a trained model on labelled images, as training computes it on the validation images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segwright.bundle import Bundle
from segwright.data.eval_loader import EvalLoader
from segwright.data.pack import Pack
from segwright.errors import DataError
from segwright.evaluation.counting import fitted
from segwright.hardware import autocast, choose_device, choose_precision
from segwright.losses import WeightedLoss
from segwright.losses.heads import HeadsLoss
from segwright.prediction.fitting import fit
from segwright.prediction.labelling import in_halves


def mean_loss(
    bundle: Bundle,
    pack: Pack,
    indices: Sequence[int] | np.ndarray,
    *,
    loss: WeightedLoss | HeadsLoss,
    batch_size: int,
    device: str = "auto",
) -> float:
    """The mean over the labelled images among `indices` of the loss of their batch.

    On the validation images of a run, with its own batch size, it is the `val_loss` of the epoch that was kept. Losses
    of overlap, such as Dice, are of whole batches, and so depend on their size.

    Args:
        bundle: the model and its classes.
        pack: the images, scaled down already where the model works at another size.
        indices: positions in the pack; images without a mask are passed over.
        loss: what the model was trained with; factors that follow its progress are taken as at the end.
        batch_size: as in training.
        device: auto, cpu, cuda ...

    Raises:
        DataError: no image has a mask, or the images do not fit the model or the memory.
    """
    labelled = [int(i) for i in indices if pack.has_mask[int(i)]]
    if not labelled:
        raise DataError(f"none of the {len(indices)} images has a mask", mend="give labelled images")
    place = choose_device(device)
    precision = choose_precision("auto", device=place)
    model, loss = bundle.model.to(place).eval(), loss.to(place)
    loss.progress = 1.0

    def logits_of(images: Tensor) -> Tensor:
        with autocast(precision, device=place):
            logits: Tensor = model(images.to(place).contiguous(memory_format=torch.channels_last))
        return logits

    total = 0.0
    with torch.inference_mode():
        for batch in EvalLoader(pack, labelled, batch_size=batch_size, device=place):
            assert batch.masks is not None, "only labelled images are scored"
            images = fitted(batch.images, lambda image: fit(image, model.spec))
            total += float(loss(in_halves(logits_of, images), batch.masks)) * batch.weight
    return total / len(labelled)
