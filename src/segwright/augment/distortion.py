"""Elastic and grid distortion: displacements of pixels that are added to the affine map, so that pixels are still
resampled once.

    place(u) = map(u) + elastic(u) + grid(u)      u output pixel, everything in input pixels (x, y)

Elastic distortion is a smooth random field (Simard, Steinkraus & Platt 2003, Best Practices for Convolutional Neural
Networks Applied to Visual Document Analysis, https://doi.org/10.1109/ICDAR.2003.1227801). There, white noise is
smoothed by a Gaussian. Here, noise stands at the nodes of a coarse grid, `sqrt(3) sigma` apart, and is enlarged by
cubic B-splines: the standard deviation of the cubic B-spline of that spacing is sigma, so it is nearly the same field
at a hundredth of the cost, and no larger anywhere than at its nodes.

Grid distortion moves the nodes of a grid of `GRID_CELLS` x `GRID_CELLS` cells, and what lies between them linearly.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from segwright.augment.policy import Policy

GRID_CELLS = 5
"""Cells along either side of the crop."""

NODE_SPACING = 3.0**0.5
"""Distance of the nodes of an elastic field, in sigmas."""


@dataclass(frozen=True)
class Distortion:
    """Displacements of N images at the nodes of two grids, in pixels of the image (x, y).

    Attributes:
        elastic: (N, rows, columns, 2) at the nodes of cubic B-splines; None for no image.
        grid: (N, GRID_CELLS + 1, GRID_CELLS + 1, 2) at the corners of the cells; None for no image.
        spacing_px: distance of the elastic nodes in the crop.
    """

    elastic: Float[np.ndarray, "N _ _ 2"] | None
    grid: Float[np.ndarray, "N _ _ 2"] | None
    spacing_px: float

    def part(self, rows: slice | Int[np.ndarray, " M"]) -> Distortion:
        """The displacements of some of the images."""
        elastic, grid = (None if nodes is None else nodes[rows] for nodes in (self.elastic, self.grid))
        return Distortion(elastic, grid, self.spacing_px)

    def only(self, changed: Bool[np.ndarray, " N"]) -> Distortion:
        """The same, but the other images stay as they are."""
        still = changed[:, None, None, None]
        elastic, grid = (None if nodes is None else nodes * still for nodes in (self.elastic, self.grid))
        return Distortion(elastic, grid, self.spacing_px)

    def fields(self, crop_px: tuple[int, int]) -> Float[np.ndarray, "N h w 2"]:
        """The displacement of every pixel of the crop."""
        return np.asarray(self.fields_on(crop_px, device=torch.device("cpu")).numpy())

    def fields_on(self, crop_px: tuple[int, int], *, device: torch.device) -> Float[Tensor, "N h w 2"]:
        """The same as a tensor."""
        total: Tensor | None = None
        for nodes, spacing_px in ((self.elastic, self.spacing_px), (self.grid, None)):
            if nodes is None:
                continue
            down, across = (torch.from_numpy(_basis(side, spacing_px)).to(device) for side in crop_px)
            values = torch.from_numpy(np.ascontiguousarray(nodes, dtype=np.float32)).to(device)
            wide = torch.einsum("wb,nabd->nawd", across, values)
            field = torch.einsum("ha,nawd->nhwd", down, wide)
            total = field if total is None else total + field
        assert total is not None, "a distortion without displacements is None"
        return total.contiguous()

    def reach_px(self) -> Float[np.ndarray, "N 2"]:
        """No pixel is displaced by more than this, along x and y."""
        parts = [np.abs(nodes).max(axis=(1, 2)) for nodes in (self.elastic, self.grid) if nodes is not None]
        return np.asarray(sum(parts), dtype=np.float64)


def draw_distortion(
    policy: Policy, count: int, *, crop_px: tuple[int, int], rng: np.random.Generator
) -> Distortion | None:
    """Draw the displacements of `count` images; None, and nothing is drawn, where the policy wants none."""
    spacing_px = NODE_SPACING * policy.elastic_sigma_px
    elastic = grid = None
    if policy.elastic_px > 0:
        rows, columns = (_basis(side, spacing_px).shape[1] for side in crop_px)
        nodes = rng.uniform(-1, 1, (count, rows, columns, 2))
        unscaled = Distortion(nodes, None, spacing_px).fields(crop_px)
        largest = np.linalg.norm(unscaled, axis=3).max(axis=(1, 2))
        wanted = policy.elastic_px * rng.random(count)
        elastic = nodes * (wanted / np.maximum(largest, 1e-9))[:, None, None, None]
    if policy.grid_distortion > 0:
        cell_px = np.array([max(side - 1, 1) / GRID_CELLS for side in crop_px[::-1]])
        moves = rng.uniform(-1, 1, (count, GRID_CELLS + 1, GRID_CELLS + 1, 2))
        grid = policy.grid_distortion * moves * cell_px
    return None if elastic is None and grid is None else Distortion(elastic, grid, spacing_px)


@functools.lru_cache(maxsize=64)
def _basis(side: int, spacing_px: float | None) -> Float[np.ndarray, "side nodes"]:
    """How much each node weighs in each pixel of a side: cubic B-splines of a spacing, or None: hats on the cells."""
    pixel = np.arange(side, dtype=np.float64)
    if spacing_px is None:
        place = pixel * (GRID_CELLS / max(side - 1, 1))
        distance = np.abs(place[:, None] - np.arange(GRID_CELLS + 1))
        return np.asarray(np.clip(1 - distance, 0, None), dtype=np.float32)
    place = pixel / spacing_px
    nodes = np.arange(-1, int(place[-1]) + 3)
    distance = np.abs(place[:, None] - nodes)
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.asarray(np.where(distance < 1, inner, outer), dtype=np.float32)
