"""Models by name. `build_model` makes one from a `ModelSpec`; an entry's `arguments` are what a model may be told."""

from __future__ import annotations

import dataclasses

import torch

from segwright.errors import RecipeError, nearest
from segwright.models.cascade import cascade_entries
from segwright.models.class_wise import class_wise_entries
from segwright.models.dual import dual_entry
from segwright.models.encoder_decoder import ENCODER_DECODERS
from segwright.models.ensemble import ensemble_entry
from segwright.models.freezing import freeze_encoder, freeze_statistics, train_only, unfreeze
from segwright.models.library import LIBRARY
from segwright.models.multihead import MULTIHEAD
from segwright.models.segformer_convolution import SEGFORMER_CONVOLUTION
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel
from segwright.models.swiftnet import SWIFTNET
from segwright.models.transunet import TRANSUNET
from segwright.models.uformer import uformer_entry
from segwright.models.unet import UNETS
from segwright.models.unet3plus import UNET3PLUS
from segwright.models.weights import WeightsReport, load_encoder_weights

__all__ = [
    "MODELS",
    "InputSize",
    "ModelEntry",
    "ModelSpec",
    "SegmentationModel",
    "WeightsReport",
    "build_model",
    "freeze_encoder",
    "freeze_statistics",
    "load_encoder_weights",
    "train_only",
    "unfreeze",
]


def build_model(spec: ModelSpec) -> SegmentationModel:
    """A model with fresh weights.

    An encoder that is named for a model without one is dropped, so that a recipe may change the model alone.

    Raises:
        RecipeError: there is no such model, encoder or argument, or a pair of model and encoder does not work.
    """
    if spec.name not in MODELS:
        raise RecipeError(f"there is no model '{spec.name}'", mend=nearest(spec.name, MODELS))
    entry = MODELS[spec.name]
    for argument in spec.arguments:
        if argument not in entry.arguments:
            problem = f"model '{spec.name}' has no argument '{argument}'"
            raise RecipeError(problem, mend=nearest(argument, entry.arguments))
    # A model is built to learn, also where a bundle is read for prediction alone: some ask gradients how they are made.
    with torch.inference_mode(mode=False), torch.enable_grad():
        return entry.build(spec if entry.takes_encoder else dataclasses.replace(spec, encoder=None))


MODELS: dict[str, ModelEntry] = {
    **UNETS,
    "unet3plus": UNET3PLUS,
    "multihead": MULTIHEAD,
    **ENCODER_DECODERS,
    "swiftnet": SWIFTNET,
    **LIBRARY,
    "segformer_convolution": SEGFORMER_CONVOLUTION,
    "transunet": TRANSUNET,
    "dual": dual_entry(build_model),
    "uformer": uformer_entry(build_model),
    "ensemble": ensemble_entry(build_model),
    **cascade_entries(build_model),
    **class_wise_entries(build_model),
}
