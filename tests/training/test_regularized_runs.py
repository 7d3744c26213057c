"""Initialisation, dropout, stochastic depth and early stopping, as a recipe asks for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segwright.bundle import load_bundle
from segwright.errors import RecipeError
from segwright.models import ModelSpec, build_model
from segwright.recipe import Recipe, make_recipe, read_recipe
from segwright.training.assembly import Start, start_of
from segwright.training.module import SegmentationModule
from segwright.training.preparation import prepare
from segwright.training.run import train

Tiny = Callable[..., Recipe]
Folder = Callable[..., Path]
ENCODER = "tu-test_resnet"
FPN = {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32}


def start(recipe: Recipe) -> Start:
    return start_of(recipe, prepare(recipe, progress=False), start_from=None, resumed=False)


def test_weights_are_drawn_as_asked_and_the_seed_decides(photos: Folder, tiny: Tiny) -> None:
    root = photos()
    starts = [start(tiny(root, model={"initialization": "orthogonal"}, training={"seed": seed})) for seed in (3, 3, 4)]
    assert starts[0].note == "from scratch, orthogonal initialisation"
    first, same, other = (next(one.model.net.parameters()) for one in starts)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    rows = first.detach().flatten(1)
    torch.testing.assert_close(rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T,
                               2 * torch.eye(min(rows.shape)), atol=1e-5, rtol=0)  # fmt: skip


def test_a_loaded_encoder_keeps_its_weights(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    encoder = build_model(ModelSpec("fpn", 1, 2, encoder=ENCODER, arguments=FPN)).encoder
    assert encoder is not None
    torch.save(encoder.state_dict(), tmp_path / "encoder.pth")
    model = {"name": "fpn", "encoder": ENCODER, "arguments": FPN, "weights": str(tmp_path / "encoder.pth")}
    begun = start(tiny(photos(), model={**model, "initialization": "kaiming"}))
    assert begun.note.endswith("encoder.pth, kaiming initialisation of the rest")
    assert begun.model.encoder is not None
    for name, value in begun.model.encoder.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name]), name


def test_a_fine_tuned_model_is_not_drawn_anew(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    root, steps = photos(), {"optimizer": {"lr": 1e-12, "weight_decay": 0.0}, "training": {"ema": 0.0}}
    first = train(tiny(root, model={"initialization": "xavier"}, epochs=1), run=tmp_path / "first", progress=False)
    recipe = tiny(root, model={"initialization": "xavier"}, epochs=1, **steps)
    second = train(recipe, run=tmp_path / "second", start_from=first, progress=False)
    assert read_recipe(second / "recipe.yaml").model.initialization == "default"
    before, after = (dict(load_bundle(run).model.named_parameters()) for run in (first, second))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, msg=lambda text, name=name: name + text)


def test_dropout_follows_the_budget_and_the_bundle_has_none(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = SegmentationModule.training_step

    def noted(self: SegmentationModule, *arguments: object) -> torch.Tensor:
        rates.append(round(1 - self.model.net.get_submodule("head.dropout_before").keep.item(), 4))
        return step(self, *arguments)

    monkeypatch.setattr(SegmentationModule, "training_step", noted)
    recipe = tiny(photos(16), epochs=2, model={"dropout": 0.6, "dropout_schedule": "falling"})
    run = train(recipe, run=tmp_path / "run", progress=False)
    assert rates == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], abs=1e-4)
    bundle = load_bundle(run)
    assert not [name for name, _ in bundle.model.named_modules() if "dropout" in name]
    row = max(json.loads(line)["val_miou"] for line in (run / "metrics.jsonl").read_text().splitlines())
    assert bundle.info["score"]["value"] == row


def test_stochastic_depth_of_a_recipe(photos: Folder, tiny: Tiny) -> None:
    root = photos()
    model: dict[str, object] = {"name": "fpn", "encoder": ENCODER, "arguments": FPN, "weights": "none"}
    begun = start(tiny(root, model={**model, "stochastic_depth": 0.2}))
    rates = [layer.p for layer in begun.model.modules() if type(layer).__name__ == "StochasticDepth"]
    assert max(rates) == 0.2
    with pytest.raises(RecipeError, match=r"stochastic depth for model 'unet', which has no residual block"):
        start(tiny(root, model={"stochastic_depth": 0.2}))
    with pytest.raises(RecipeError, match=r"'model\.dropout' = 1"):
        make_recipe({"model": {"dropout": 1.0}})


def test_small_gains_do_not_save_a_run_from_its_end(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    root, optimizer = photos(), {"lr": 0.002}
    training = {"early_stopping": 2, "ema": 0.0, "minimum_gain": 1.0}
    run = train(tiny(root, epochs=8, training=training, optimizer=optimizer), run=tmp_path / "run", progress=False)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # The first score is a gain of more than 1 over none at all.
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert "no better validation mIoU for 2 epochs: stopping early" in (run / "log.txt").read_text()
    # The bundle is the best all the same.
    assert load_bundle(run).info["score"]["value"] == max(row["val_miou"] for row in rows)
