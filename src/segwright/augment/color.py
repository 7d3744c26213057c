"""Brightness, contrast, gamma, hue, saturation, blur and noise, with parameters per image.

With v in 0..1 the change is   v' = clip(gain M v + offset, 0, 1) ** gamma + noise   after an optional Gaussian blur.
M mixes three colour channels: hue and saturation as the matrices `hueRotate` and `saturate` of SVG
(https://www.w3.org/TR/SVG11/filters.html#feColorMatrixElement), which leave gray as it is. uint8 images have full
scale 255; 16-bit and float images are measured against the range of their own pixels, since sensors rarely use the
whole type.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float, Int
from torch import Tensor

from segwright.augment.policy import Policy

NOISE_BANK = 1 << 20
"""Standard normals are drawn once and read from a random place on: drawing them anew costs more than all the rest."""

AFFECTED = 0.25
"""Share of the images that are blurred, and that get noise."""

_LUMA = np.array([0.213, 0.715, 0.072])
_HUE_COS = np.array([[0.787, -0.715, -0.072], [-0.213, 0.285, -0.072], [-0.213, -0.715, 0.928]])
_HUE_SIN = np.array([[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]])


@dataclass(frozen=True)
class ColorDraw:
    """Parameters of N images; None where all images go without.

    Attributes:
        gain, offset, gamma: (N,) of the formula above.
        mixing: (N, 3, 3) M.
        blur_sigma_px: (N,), 0 for none.
        noise: (N,) standard deviations as a share of full scale, 0 for none.
        noise_start: (N,) place in the bank of noise.
    """

    gain: Float[np.ndarray, " N"]
    offset: Float[np.ndarray, " N"]
    gamma: Float[np.ndarray, " N"]
    mixing: Float[np.ndarray, "N 3 3"] | None
    blur_sigma_px: Float[np.ndarray, " N"] | None
    noise: Float[np.ndarray, " N"] | None
    noise_start: Int[np.ndarray, " N"]

    def part(self, rows: slice | Int[np.ndarray, " P"]) -> ColorDraw:
        """The parameters of some of the images."""
        values = (getattr(self, field.name) for field in fields(self))
        return ColorDraw(*(None if value is None else value[rows] for value in values))  # type: ignore[arg-type]  # by field

    def only(self, changed: Bool[np.ndarray, " N"]) -> ColorDraw:
        """The same, but the other images keep their colours."""
        return ColorDraw(
            np.where(changed, self.gain, 1.0),
            np.where(changed, self.offset, 0.0),
            np.where(changed, self.gamma, 1.0),
            None if self.mixing is None else np.where(changed[:, None, None], self.mixing, np.eye(3)),
            None if self.blur_sigma_px is None else np.where(changed, self.blur_sigma_px, 0.0),
            None if self.noise is None else np.where(changed, self.noise, 0.0),
            self.noise_start,
        )

    @property
    def changes_tone(self) -> bool:
        return bool((self.gain != 1).any() or (self.offset != 0).any() or (self.gamma != 1).any())

    @property
    def changes_nothing(self) -> bool:
        return self.mixing is None and self.blur_sigma_px is None and self.noise is None and not self.changes_tone


def draw_color(policy: Policy, count: int, *, channels: int, rng: np.random.Generator) -> ColorDraw:
    """Draw the parameters of `count` images; hue and saturation only for three channels."""
    unit = rng.random((count, 9))
    either = 2 * unit - 1
    gain = 1 + policy.contrast * either[:, 0]
    offset = 0.5 * (1 - gain) + policy.brightness * either[:, 1]
    gamma = np.exp(np.log1p(policy.gamma) * either[:, 2])
    mixing = None
    if channels == 3 and (policy.hue_degrees > 0 or policy.saturation > 0):
        mixing = mixing_matrices(
            hue_degrees=policy.hue_degrees * either[:, 3], saturation=1 + policy.saturation * either[:, 4]
        )
    sigma = np.where(unit[:, 5] < AFFECTED, policy.blur_sigma_px * unit[:, 6], 0.0)
    noise = np.where(unit[:, 7] < AFFECTED, policy.noise * unit[:, 8], 0.0)
    start = rng.integers(0, NOISE_BANK, count)
    return ColorDraw(gain, offset, gamma, mixing, sigma if sigma.any() else None, noise if noise.any() else None, start)


def mixing_matrices(
    *, hue_degrees: Float[np.ndarray, " N"], saturation: Float[np.ndarray, " N"]
) -> Float[np.ndarray, "N 3 3"]:
    """Turn hues, then scale the distance from gray; (N, 3, 3)."""
    angle = np.deg2rad(hue_degrees)[:, None, None]
    hue = np.tile(_LUMA, (3, 1)) + np.cos(angle) * _HUE_COS + np.sin(angle) * _HUE_SIN
    factor = saturation[:, None, None]
    mixed = (factor * np.eye(3) + (1 - factor) * np.tile(_LUMA, (3, 1))) @ hue
    return np.asarray(mixed)


@functools.cache
def noise_bank() -> Float[np.ndarray, " P"]:
    """`NOISE_BANK` standard normals, the same ones in every process."""
    return np.random.default_rng(0).standard_normal(NOISE_BANK, dtype=np.float32)


@functools.cache
def _noise_bank_on(device: str) -> Tensor:
    return torch.from_numpy(noise_bank()).to(device)


def tone_tables(color: ColorDraw) -> np.ndarray | None:
    """Gain, offset and gamma as one table an image, (N, 256) uint8; None where nothing changes.

    Where channels are mixed, gain and offset belong to the mixing and the table holds gamma alone.
    """
    if not color.changes_tone:
        return None
    level = np.linspace(0.0, 1.0, 256, dtype=np.float32)[None]
    if color.mixing is None:
        level = level * color.gain[:, None] + color.offset[:, None]
    powered = np.clip(level, 0, 1) ** color.gamma[:, None]
    return np.asarray(np.rint(255 * powered).astype(np.uint8))


def color_uint8_on_cpu(image: np.ndarray, color: ColorDraw, n: int, *, table: np.ndarray | None) -> None:
    """Change one contiguous image (H, W, C) in place by the parameters of row `n`."""
    if color.blur_sigma_px is not None and color.blur_sigma_px[n] > 0:
        _blur(image, sigma_px=float(color.blur_sigma_px[n]))
    if color.mixing is not None:
        matrix = np.empty((3, 4))
        matrix[:, :3] = color.gain[n] * color.mixing[n]
        matrix[:, 3] = 255 * color.offset[n]
        cv2.transform(image, matrix, dst=image)
    if table is not None:
        flat = image.reshape(image.shape[0], -1)
        cv2.LUT(flat, table, dst=flat)
    if color.noise is not None and color.noise[n] > 0:
        flat = image.reshape(image.shape[0], -1)
        grain = _grain(flat.shape, start=int(color.noise_start[n])) * np.float32(255 * color.noise[n])
        cv2.add(flat, grain, dst=flat, dtype=cv2.CV_8U)


def color_float_on_cpu(image: np.ndarray, color: ColorDraw, n: int) -> None:
    """Change one image (H, W, C) of another type than uint8 in place, against the range of its own pixels."""
    if color.blur_sigma_px is not None and color.blur_sigma_px[n] > 0:
        _blur(image, sigma_px=float(color.blur_sigma_px[n]))
    axes = (0, 1, 2) if color.mixing is not None else (0, 1)
    low = np.min(image, axis=axes, keepdims=True).astype(np.float32)
    span = np.max(image, axis=axes, keepdims=True).astype(np.float32) - low
    span[span == 0] = 1
    level = (image.astype(np.float32) - low) / span
    if color.mixing is not None:
        level = level @ color.mixing[n].T.astype(np.float32)
    level = np.clip(level * np.float32(color.gain[n]) + np.float32(color.offset[n]), 0, 1) ** np.float32(color.gamma[n])
    if color.noise is not None and color.noise[n] > 0:
        level += _grain(image.shape, start=int(color.noise_start[n])) * np.float32(color.noise[n])
    level = level * span + low
    image[...] = level if image.dtype.kind == "f" else np.clip(np.rint(level), 0, np.iinfo(image.dtype).max)


def _grain(shape: tuple[int, ...], *, start: int) -> np.ndarray:
    size = int(np.prod(shape))
    bank = noise_bank()
    if start + size <= NOISE_BANK:
        return bank[start : start + size].reshape(shape)
    return np.take(bank, np.arange(start, start + size), mode="wrap").reshape(shape)


def _blur(image: np.ndarray, *, sigma_px: float) -> None:
    for start in range(0, image.shape[2], 4):
        part = np.ascontiguousarray(image[:, :, start : start + 4])
        side = 2 * _blur_radius(sigma_px) + 1
        blurred = cv2.GaussianBlur(part, (side, side), sigma_px, borderType=cv2.BORDER_REFLECT_101)
        image[:, :, start : start + 4] = blurred.reshape(part.shape)


def _blur_radius(sigma_px: float) -> int:
    return max(1, round(3 * sigma_px))


def color_on_device(
    images: Float[Tensor, "N C H W"], color: ColorDraw, *, full_scale: float | None
) -> Float[Tensor, "N C H W"]:
    """The same change in torch on float32 images of any device, per image.

    Args:
        images: values as stored, not yet normalised.
        color: the parameters.
        full_scale: 255 for uint8; None measures each image against its own range.
    """
    if color.changes_nothing:
        return images
    if color.blur_sigma_px is not None:
        images = _blur_on_device(images, color.blur_sigma_px)
    low: Tensor | float = 0.0
    span: Tensor | float = 1.0 if full_scale is None else full_scale
    if full_scale is None:
        axes = (1, 2, 3) if color.mixing is not None else (2, 3)
        low = images.amin(axes, keepdim=True)
        span = images.amax(axes, keepdim=True) - low
        span = torch.where(span == 0, torch.ones_like(span), span)
    level = (images - low) / span
    if color.mixing is not None:
        level = torch.einsum("nij,njhw->nihw", _column(color.mixing, images), level)
    gain, offset, gamma = (
        _column(part, images)[:, None, None, None] for part in (color.gain, color.offset, color.gamma)
    )
    level = (level * gain + offset).clamp(0, 1) ** gamma
    if color.noise is not None:
        grain = _grain_on_device(color.noise_start, images)
        level = level + grain * _column(color.noise, images)[:, None, None, None]
    return level * span + low


def _grain_on_device(start: Int[np.ndarray, " N"], like: Tensor) -> Tensor:
    count, channels, height, width = like.shape
    first = torch.from_numpy(start).to(like.device, non_blocking=True)
    place = first[:, None] + torch.arange(height * width * channels, device=like.device)
    grain = _noise_bank_on(str(like.device))[place % NOISE_BANK]
    return grain.view(count, height, width, channels).permute(0, 3, 1, 2)


def _column(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(like.device, non_blocking=True)


def _blur_on_device(images: Tensor, sigma_px: np.ndarray) -> Tensor:
    """A separable Gaussian of its own width for every image, as one grouped convolution along each axis."""
    count, channels, height, width = images.shape
    radius = _blur_radius(float(sigma_px.max()))
    distance = np.arange(-radius, radius + 1)
    reach = np.array([_blur_radius(float(sigma)) for sigma in sigma_px])[:, None]
    kernels = np.exp(-0.5 * (distance / np.maximum(sigma_px, 1e-6)[:, None]) ** 2) * (np.abs(distance) <= reach)
    weights = _column(kernels / kernels.sum(axis=1, keepdims=True), images).repeat_interleave(channels, dim=0)
    flat = images.reshape(1, count * channels, height, width)
    mode = "reflect" if radius < min(height, width) else "replicate"
    padded = functional.pad(flat, (radius, radius, radius, radius), mode=mode)
    rows = functional.conv2d(padded, weights[:, None, :, None], groups=count * channels)
    return functional.conv2d(rows, weights[:, None, None, :], groups=count * channels).view(images.shape)
