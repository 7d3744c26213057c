"""How strongly training images are changed: the ranges that chance draws from.

A value is a range around "unchanged", so zero always means off. The presets grow from `light` (what no photograph
minds) to `strong` (little data, many points of view). `copies` is for copies on disk: geometry alone, no empty corner.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from segwright.errors import RecipeError


@dataclass(frozen=True)
class Policy:
    """Ranges of random changes; the defaults change nothing.

    Attributes:
        flip_horizontal: probability of a mirror image, left to right.
        flip_vertical: probability of a mirror image, top to bottom.
        quarter_turns: turn by 0, 90, 180 or 270 degrees, all equally likely.
        rotate_degrees: turn by up to this angle either way.
        scale: zoom factors (smallest, largest), drawn log-uniformly; above 1 enlarges.
        shear_degrees: slant either axis by up to this angle.
        translate: extra shift of up to this share of the image side.
        rotate_fill: what a turned, sheared or shifted image leaves empty is filled with its reflection, or avoided by
            just enough zoom (see `geometry`).
        elastic_px: largest displacement of a smooth random field, drawn from 0 to this, in pixels of the image (see
            `distortion`).
        elastic_sigma_px: how smooth that field is: the Gaussian it looks smoothed by, in pixels of the crop.
        grid_distortion: move the nodes of a coarse grid by up to this share of a cell, along x and y.
        brightness: add up to this share of full scale.
        contrast: multiply the distance from mid-gray by 1 +- this.
        gamma: raise to a power between 1 / (1 + this) and 1 + this.
        hue_degrees: turn colours by up to this angle (three channels only).
        saturation: multiply the distance from gray by 1 +- this (three channels only).
        blur_sigma_px: largest Gaussian blur; one image in four is blurred.
        noise: largest standard deviation of added noise, as a share of full scale; one image in four gets some.
        match: probability that an image takes over the tones of one of `match_to` (see `matching`).
        match_to: (R, C, 256) tones of R images; None where there are none to match.

    Raises:
        RecipeError: the zoom factors are not positive or in the wrong order, an elastic field has no width, or images
            are to be matched with nothing.
    """

    flip_horizontal: float = 0.0
    flip_vertical: float = 0.0
    quarter_turns: bool = False
    rotate_degrees: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear_degrees: float = 0.0
    translate: float = 0.0
    rotate_fill: Literal["reflection", "zoom"] = "reflection"
    elastic_px: float = 0.0
    elastic_sigma_px: float = 16.0
    grid_distortion: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    hue_degrees: float = 0.0
    saturation: float = 0.0
    blur_sigma_px: float = 0.0
    noise: float = 0.0
    match: float = 0.0
    match_to: Float[np.ndarray, "R C Q"] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        smallest, largest = self.scale
        if not 0 < smallest <= largest:
            raise RecipeError(
                f"'augment.scale' = {self.scale}",
                mend="give the smaller factor first, both above 0, such as [0.8, 1.25]",
            )
        if self.elastic_px > 0 and self.elastic_sigma_px < 1:
            problem = f"'augment.elastic_sigma_px' = {self.elastic_sigma_px:g} is no smooth field"
            raise RecipeError(problem, mend="give 1 or more, such as a twentieth of the image side")
        if self.match > 0 and (self.match_to is None or not len(self.match_to)):
            raise RecipeError("'augment.match' has nothing to match", mend="name pictures with augment.match_to")


PRESETS: dict[str, Policy] = {
    "none": Policy(),
    "light": Policy(flip_horizontal=0.5, scale=(0.9, 1.1), brightness=0.05, contrast=0.1),
    "medium": Policy(
        flip_horizontal=0.5, rotate_degrees=5.0, scale=(0.75, 1.5),
        brightness=0.1, contrast=0.2, gamma=0.2, hue_degrees=8.0, saturation=0.2,
    ),
    "strong": Policy(
        flip_horizontal=0.5, rotate_degrees=15.0, scale=(0.5, 2.0), shear_degrees=5.0, translate=0.05,
        brightness=0.2, contrast=0.3, gamma=0.3, hue_degrees=18.0, saturation=0.4, blur_sigma_px=1.2, noise=0.04,
    ),
    "copies": Policy(
        flip_horizontal=0.5, flip_vertical=0.5, quarter_turns=True, rotate_degrees=20.0, scale=(1.0, 1.4),
        shear_degrees=5.0, translate=0.1, rotate_fill="zoom",
    ),
}  # fmt: skip
