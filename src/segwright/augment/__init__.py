"""Random changes of training images and their masks, drawn once and applied alike on the CPU or on a device."""

from __future__ import annotations

from segwright.augment.pipeline import Draw, augment_on_cpu, augment_on_device, draw
from segwright.augment.policy import PRESETS, Policy

__all__ = ["PRESETS", "Draw", "Policy", "augment_on_cpu", "augment_on_device", "draw"]
