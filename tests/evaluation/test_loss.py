"""The loss of given images against the validation loss of the training itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright import verbs
from segwright.data import tiles
from segwright.files import read_json
from segwright.recipe import make_recipe
from segwright.training.run import train


def photos(root: Path, *, count: int, side: str = "") -> Path:
    """Pictures of two sizes whose left part is dark; the rarer class is a sixth of them."""
    rng = np.random.default_rng(count)
    for part in ("images", "masks"):
        (root / side / part).mkdir(parents=True)
    for i in range(count):
        height = (32, 40)[i % 2]
        mask = (np.arange(48)[None] >= rng.integers(36, 44)).repeat(height, axis=0).astype(np.uint8)
        image = np.clip(mask * 120 + 60 + rng.normal(0, 12, mask.shape), 0, 255).astype(np.uint8)
        for part, pixels in (("images", image), ("masks", mask)):
            Image.fromarray(pixels).save(root / side / part / f"{side}{i:02d}.png")
    return root


CASES: dict[str, dict[str, dict[str, object]]] = {
    "weighted, and overlap of whole batches": {"loss": {"formula": "dice + 2*ce", "class_weights": "inverse"}},
    "classes left out": {
        "loss": {"formula": "ce", "class_weights": "sqrt_inverse", "label_smoothing": 0.1},
        "classes": {"ignore_in_loss": ["class 0"]},
    },
    "several heads": {"model": {"name": "multihead"}, "loss": {"formula": "dice"}},
    "scaled down": {"data": {"working_size_px": 24}, "loss": {"formula": "focal"}},
}


@pytest.mark.parametrize("case", CASES)
def test_on_validation_images_it_is_the_loss_of_the_epoch_that_was_kept(case: str, tmp_path: Path) -> None:
    tree: dict[str, dict[str, object]] = {
        "data": {"path": str(photos(tmp_path / "photos", count=20))},
        "model": {"name": "unet", "encoder": None, "arguments": {"width": 4, "depth": 2}},
        "training": {"epochs": 2, "batch_size": 3, "ema": 0, "precision": "fp32", "keep": "last"},
    }
    for part, values in CASES[case].items():
        tree[part] = {**tree.get(part, {}), **values}
    run = train(make_recipe(tree), run=tmp_path / "run", progress=False)
    verbs.evaluate(run, batch_size=2, loss=True, progress=False)
    kept = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert read_json(run / "scores" / "val.json")["loss"] == pytest.approx(kept["val_loss"], rel=1e-2)
    verbs.evaluate(run, progress=False)
    assert "loss" not in read_json(run / "scores" / "val.json")


def test_of_other_images_and_of_large_ones_in_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = photos(tmp_path / "photos", count=20)
    recipe = make_recipe(
        {
            "data": {"path": str(data)},
            "model": {"name": "unet", "encoder": None, "arguments": {"width": 4, "depth": 2}},
            "training": {"epochs": 1, "batch_size": 4, "ema": 0, "precision": "fp32"},
        }
    )
    run = train(recipe, run=tmp_path / "run", progress=False)
    verbs.evaluate(run, data=photos(tmp_path / "more", count=7), loss=True, progress=False)
    whole = read_json(run / "scores" / "more.json")["loss"]
    assert 0 < whole < 10
    monkeypatch.setattr("segwright.data.eval_loader.is_large", lambda *size, tile_px: True)
    monkeypatch.setattr(tiles, "TILE_PX", 32)
    verbs.evaluate(run, data=tmp_path / "more", loss=True, progress=False)
    # Cross-entropy is a mean over pixels: in tiles it is nearly that of the image.
    assert read_json(run / "scores" / "more.json")["loss"] == pytest.approx(whole, rel=0.1)
