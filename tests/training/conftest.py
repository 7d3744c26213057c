from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.recipe import Recipe, make_recipe
from segwright.training import state

SIZE = 32
Folder = Callable[..., Path]


@pytest.fixture(scope="session")
def write_photos() -> Folder:
    """Writes a folder of pictures whose left part is dark (class 0) and whose right part is bright (class 1)."""

    def write(root: Path, *, count: int, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        for part in ("images", "masks"):
            (root / part).mkdir(parents=True)
        for i in range(count):
            mask = (np.arange(SIZE)[None] >= rng.integers(8, 24)).repeat(SIZE, axis=0).astype(np.uint8)
            image = np.clip(mask * 120 + 60 + rng.normal(0, 12, mask.shape), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / "images" / f"flight{i // 3}_{i:02d}.png")
            Image.fromarray(mask).save(root / "masks" / f"flight{i // 3}_{i:02d}.png")
        return root

    return write


@pytest.fixture
def photos(tmp_path: Path, write_photos: Folder) -> Folder:
    """The same, in this test's own folder."""

    def write(count: int = 12, *, name: str = "photos", seed: int = 0) -> Path:
        return write_photos(tmp_path / name, count=count, seed=seed)

    return write


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Recipe]:
    """A recipe that trains in a second or two."""

    def make(path: Path, *, epochs: int | None = 2, **parts: dict[str, object]) -> Recipe:
        tree: dict[str, dict[str, object]] = {
            "data": {"path": str(path)},
            "model": {"name": "unet", "encoder": None, "arguments": {"width": 4, "depth": 2}},
            "training": {"epochs": epochs, "batch_size": 4, "ema": 0.5, "precision": "fp32"},
            "optimizer": {"lr": 0.02},
        }
        for part, values in parts.items():
            tree[part] = {**tree.get(part, {}), **values}
        return make_recipe(tree)

    return make


@pytest.fixture
def save_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run save its state after every step."""
    monkeypatch.setattr(state, "RESUME_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(state, "SAVING_SHARE", math.inf)
