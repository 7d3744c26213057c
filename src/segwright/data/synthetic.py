"""Terrain that never was: pictures of sky, soil, sand, rock and a rare boulder, each with its exact mask.

They serve the demo and the tests: free of licences, generated in milliseconds, and hard enough to be worth learning,
since the classes overlap in colour and differ in texture. Noise is drawn in octaves (Perlin, An Image Synthesizer,
SIGGRAPH 1985, https://doi.org/10.1145/325165.325247): one array of chance for each scale, enlarged and summed.

    python -m segwright.data.synthetic OUT --images 120
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from segwright.errors import OutputError
from segwright.files import atomic, write_arrays, write_mask, write_text
from segwright.types import SPLIT_NAMES, ImageArray, MaskArray, SplitName

TERRAIN_NAMES = ("sky", "soil", "sand", "rock", "boulder")
TERRAIN_COLORS = ((86, 180, 233), (213, 94, 0), (240, 228, 66), (153, 153, 153), (0, 114, 178))
SKY, SOIL, SAND, ROCK, BOULDER = range(5)

_SHARES: dict[SplitName, float] = {"train": 0.7, "val": 0.2, "test": 0.1}
_BASE = np.array([[206, 186, 160], [148, 92, 62], [196, 152, 104], [112, 90, 80], [92, 76, 70]], dtype=np.float32)


def fractal_noise(rng: np.random.Generator, size: tuple[int, int], *, cell_px: float, octaves: int = 4) -> np.ndarray:
    """Smooth chance of mean 0 and standard deviation about 1.

    Args:
        rng: where chance comes from.
        size: rows, columns.
        cell_px: width of the largest hills.
        octaves: how often they are halved and added at half the height.
    """
    total = np.zeros(size, dtype=np.float32)
    for octave in range(octaves):
        cell = max(1.0, cell_px / 2**octave)
        grid = rng.standard_normal((int(size[0] / cell) + 3, int(size[1] / cell) + 3), dtype=np.float32)
        enlarged = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        total += enlarged[: size[0], : size[1]] / 2**octave
    return total / max(float(total.std()), 1e-6)


def terrain(rng: np.random.Generator, size: tuple[int, int]) -> tuple[ImageArray, MaskArray]:
    """One picture (3, H, W) and its mask (H, W).

    Args:
        rng: where chance comes from; a picture takes a fixed road through it.
        size: rows, columns; at least 32 each.
    """
    mask = _layout(rng, size)
    height = _relief(rng, mask)
    image = _paint(rng, mask, height)
    return np.ascontiguousarray(image.transpose(2, 0, 1)), mask


def _layout(rng: np.random.Generator, size: tuple[int, int]) -> MaskArray:
    """Where what lies: sky above a ridge, patches of sand and rock on soil, now and then a boulder."""
    rows, columns = size
    row, column = np.mgrid[:rows, :columns].astype(np.float32)
    ridge = rows * rng.uniform(0.12, 0.4) + fractal_noise(rng, (1, columns), cell_px=columns / 3)[0] * rows * 0.05
    mask = np.full(size, SOIL, dtype=np.uint8)
    # Patches on the ground look flat from the side, so they are drawn on a plane that is squeezed and then stretched.
    flat = cv2.resize(fractal_noise(rng, (2 * rows, columns), cell_px=columns / 4), (columns, rows))
    mask[flat > rng.uniform(0.2, 0.8)] = SAND
    stones = cv2.resize(fractal_noise(rng, (2 * rows, columns), cell_px=columns / 6), (columns, rows))
    mask[stones > rng.uniform(0.5, 1.1)] = ROCK
    mask[row < ridge] = SKY
    for _ in range(rng.choice(3, p=(0.7, 0.2, 0.1))):
        _drop_boulder(rng, mask, row, column, lowest=float(ridge.max()))
    return mask


def _drop_boulder(
    rng: np.random.Generator, mask: MaskArray, row: np.ndarray, column: np.ndarray, *, lowest: float
) -> None:
    """A boulder is a lumpy ellipse that stands on the ground; the nearer, the larger."""
    rows, columns = mask.shape
    foot = rng.uniform(min(lowest + 0.1 * rows, 0.8 * rows), 0.95 * rows)
    radius = max(3.0, rows * rng.uniform(0.05, 0.09) * (0.5 + foot / rows))
    centre = rng.uniform(radius, columns - radius)
    angle = np.arctan2(row - foot + radius, column - centre)
    phase = rng.uniform(0, 2 * np.pi, size=3)
    lumps = (
        1
        + 0.1 * np.sin(2 * angle + phase[0])
        + 0.07 * np.sin(3 * angle + phase[1])
        + 0.04 * np.sin(5 * angle + phase[2])
    )
    mask[np.hypot((column - centre) / 1.25, row - foot + radius) < radius * lumps] = BOULDER


def _relief(rng: np.random.Generator, mask: MaskArray) -> np.ndarray:
    """Heights in pixels: ripples on sand, crumbs on soil, edges on rock, a dome on a boulder."""
    size = mask.shape
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    bend = fractal_noise(rng, size, cell_px=size[1] / 5, octaves=2)
    period = max(3.5, size[0] / 26)
    ripples = np.sin((rows * 2 + columns * rng.uniform(-0.3, 0.3)) / period * np.pi + 2 * bend)
    crumbs = fractal_noise(rng, size, cell_px=5, octaves=3)
    edges = -np.abs(fractal_noise(rng, size, cell_px=size[1] / 12, octaves=4))
    dome = cv2.distanceTransform((mask == BOULDER).astype(np.uint8), cv2.DIST_L2, 5)
    height = np.select(
        [mask == SAND, mask == SOIL, mask == ROCK, mask == BOULDER],
        [0.8 * ripples, 0.7 * crumbs, 3.0 * edges + 0.5 * crumbs, 1.2 * np.sqrt(dome) * 2 + 0.5 * crumbs],
        default=0.0,
    )
    return np.asarray(height, dtype=np.float32)


def _paint(rng: np.random.Generator, mask: MaskArray, height: np.ndarray) -> np.ndarray:
    """Colour by class and light by relief, then haze, shadow and the grain of the camera; (H, W, 3) uint8."""
    rows = np.linspace(0, 1, mask.shape[0], dtype=np.float32)[:, None]
    tint = rng.normal(0, 6, size=(len(TERRAIN_NAMES), 3)).astype(np.float32)
    image = (_BASE + tint)[mask]
    sun = rng.uniform(0.5, 1.0) * rng.choice((-1.0, 1.0))
    down, right = np.gradient(height)
    ground = (mask != SKY).astype(np.float32)
    # Light from one side: slopes towards the sun are bright, those away from it dark.
    light = 1 + np.clip(0.22 * (sun * right + 0.6 * down), -0.5, 0.5) * ground
    light += 0.06 * fractal_noise(rng, mask.shape, cell_px=mask.shape[1] / 3, octaves=3) * ground
    light -= 0.35 * _shadow(mask, sun) * ground
    image = image * light[..., None]
    haze = (np.clip(0.55 - rows, 0, 1) * 0.5 * ground)[..., None]
    image = image * (1 - haze) + (_BASE[SKY] + tint[SKY]) * haze
    image += ((1 - ground) * (30 * (rows - 0.3) + 3 * fractal_noise(rng, mask.shape, cell_px=mask.shape[1] / 2)))[
        ..., None
    ]
    image = image * rng.uniform(0.82, 1.15) + rng.normal(0, 3.0, size=image.shape)
    soft = cv2.GaussianBlur(np.clip(image, 0, 255), (0, 0), 0.5)
    return np.asarray(soft.round(), dtype=np.uint8)


def _shadow(mask: MaskArray, sun: float) -> np.ndarray:
    """What boulders and rocks keep from the light: their shape moved away from the sun and softened."""
    step = mask.shape[1] * 0.025
    move = np.array([[1, 0, step if sun < 0 else -step], [0, 1, mask.shape[0] * 0.02]], dtype=np.float32)
    high = ((mask == BOULDER) + 0.4 * (mask == ROCK)).astype(np.float32)
    moved = cv2.warpAffine(high, move, mask.shape[::-1])
    return np.asarray(cv2.GaussianBlur(np.clip(moved - high, 0, 1), (0, 0), 1.2))


def terrain_stack(images: int, *, size: tuple[int, int] = (96, 128), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 3, H, W) and masks (N, H, W), both uint8.

    Args:
        images: how many.
        size: rows, columns.
        seed: the same seed gives the same picture at the same place, however many there are.
    """
    pairs = [terrain(np.random.default_rng((seed, one)), size) for one in range(images)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def write_terrain(
    out: Path,
    *,
    images: int = 120,
    size: tuple[int, int] = (96, 128),
    seed: int = 0,
    layout: Literal["pairs", "sides"] = "sides",
) -> Path:
    """Write a data set.

    Args:
        out: a new folder, or a new .npz with images (N, H, W, 3), masks (N, H, W) and class_names.
        images: how many; at least 5 where sides are wanted.
        size: rows, columns; at least 32 each.
        seed: of all chance.
        layout: in a folder, images/ and masks/ at its top, or in each of train/, val/ and test/.

    Returns:
        The path that was written.

    Raises:
        OutputError: it exists already, or cannot be written.
    """
    if out.exists():
        raise OutputError("exists already", mend="choose another name", file=out)
    stack, masks = terrain_stack(images, size=size, seed=seed)
    if out.suffix == ".npz":
        arrays = {"images": stack.transpose(0, 2, 3, 1), "masks": masks, "class_names": np.array(TERRAIN_NAMES)}
        write_arrays(out, arrays)
        return out
    for one, side in enumerate(_sides(images, layout)):
        write_image(out / side / "images" / f"terrain_{one:04d}.png", stack[one])
        write_mask(out / side / "masks" / f"terrain_{one:04d}.png", masks[one], np.array(TERRAIN_COLORS))
    write_text(out / "classes.txt", "\n".join(TERRAIN_NAMES) + "\n")
    return out


def _sides(images: int, layout: Literal["pairs", "sides"]) -> list[str]:
    """The folder of each image; the order is by chance already, so sides are cut from it in one piece each."""
    if layout == "pairs":
        return [""] * images
    ends = np.cumsum([max(1, round(images * _SHARES[side])) for side in SPLIT_NAMES[1:]])
    return ["val" if one < ends[0] else "test" if one < ends[1] else "train" for one in range(images)]


def write_image(path: Path, image: ImageArray) -> None:
    """Write (C, H, W) uint8 with one, three or four channels as PNG, or as what the ending of the path says."""
    rows = image.transpose(1, 2, 0)
    with atomic(path) as stream:
        Image.fromarray(np.ascontiguousarray(rows[..., 0] if rows.shape[2] == 1 else rows)).save(
            stream, format=Image.registered_extensions()[path.suffix.lower()]
        )


def main() -> None:
    """Write terrain from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m segwright.data.synthetic", description="generate labelled terrain pictures"
    )
    parser.add_argument("out", type=Path, help="a new folder or .npz")
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    out = write_terrain(given.out, images=given.images, size=tuple(given.size), seed=given.seed)
    print(f"wrote {given.images} images of {given.size[0]} x {given.size[1]} pixels to {out}")


if __name__ == "__main__":
    main()
