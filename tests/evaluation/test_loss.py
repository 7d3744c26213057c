"""The loss of given images against the validation loss of the training itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segwright import verbs
from segwright.data.eval_loader import EvalLoader
from segwright.errors import RecipeError
from segwright.files import read_json
from segwright.recipe import make_recipe
from segwright.training.run import train


def photos(root: Path, *, count: int, least: tuple[int, int] = (32, 48)) -> Path:
    """Pictures of two sizes whose left part is dark; the bright part is small."""
    rng = np.random.default_rng(count)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for i in range(count):
        height, width = least[0] + 8 * (i % 2), least[1]
        mask = (np.arange(width)[None] >= rng.integers(width - 12, width - 4)).repeat(height, axis=0).astype(np.uint8)
        image = np.clip(mask * 120 + 60 + rng.normal(0, 12, mask.shape), 0, 255).astype(np.uint8)
        for part, pixels in (("images", image), ("masks", mask)):
            Image.fromarray(pixels).save(root / part / f"{i:02d}.png")
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
    recipe = make_recipe(
        {
            "data": {"path": str(photos(tmp_path / "photos", count=20))},
            "model": {"name": "unet", "encoder": None, "arguments": {"width": 4, "depth": 2}},
            "loss": {"formula": "ce"},
            "training": {"epochs": 1, "batch_size": 4, "ema": 0, "precision": "fp32"},
        }
    )
    run = train(recipe, run=tmp_path / "run", progress=False)
    more = photos(tmp_path / "more", count=7, least=(96, 128))
    verbs.evaluate(run, data=more, loss=True, progress=False)
    whole = read_json(run / "scores" / "more.json")["loss"]
    batches: list[int] = []

    def in_tiles(*given: Any, **named: Any) -> EvalLoader:
        loader = EvalLoader(*given, **named, tile_px=64)
        batches.append(len(loader))
        return loader

    monkeypatch.setattr("segwright.data.tiles.LARGE_IMAGE_PX", 1000)
    monkeypatch.setattr("segwright.evaluation.loss.EvalLoader", in_tiles)
    verbs.evaluate(run, data=more, loss=True, progress=False)
    assert batches[0] > 7
    # Cross-entropy is a mean over pixels; at the edges of tiles the network sees zeros in place of their neighbours.
    assert read_json(run / "scores" / "more.json")["loss"] == pytest.approx(whole, rel=0.02)
    with pytest.raises(RecipeError, match="plain answers"):
        verbs.evaluate(run, data=more, loss=True, flips="horizontal", progress=False)
