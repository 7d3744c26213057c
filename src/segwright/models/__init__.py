"""Models by name. `build_model` makes one from a `ModelSpec`; an entry's `arguments` are what a model may be told."""

from __future__ import annotations

import dataclasses

from segwright.errors import RecipeError, nearest
from segwright.models.encoder_decoder import ENCODER_DECODERS
from segwright.models.freezing import freeze_encoder
from segwright.models.library import LIBRARY
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel
from segwright.models.swiftnet import SWIFTNET
from segwright.models.unet import ARGUMENTS as UNET_ARGUMENTS
from segwright.models.unet import build_unet
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
    "load_encoder_weights",
]

MODELS: dict[str, ModelEntry] = {
    "unet": ModelEntry(
        build=build_unet,
        paper="https://arxiv.org/abs/1505.04597",
        line="plain U-Net from scratch: depth, width, norm and padding to choose",
        arguments=UNET_ARGUMENTS,
        takes_encoder=False,
    ),
    **ENCODER_DECODERS,
    "swiftnet": SWIFTNET,
    **LIBRARY,
}


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
    return entry.build(spec if entry.takes_encoder else dataclasses.replace(spec, encoder=None))
