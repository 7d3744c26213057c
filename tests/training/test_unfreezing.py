"""Encoders that learn later, and statistics that stand still or do not; the same after a stop in between."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segwright.errors import RecipeError
from segwright.models import ModelSpec, SegmentationModel, build_model, freeze_encoder, freeze_statistics, unfreeze
from segwright.recipe import Recipe, make_recipe
from segwright.training import callbacks
from segwright.training.run import train

Tiny = Callable[..., Recipe]
Folder = Callable[..., Path]
NET = {"name": "segformer_convolution", "encoder": "tu-test_resnet", "arguments": {"width": 4}}

BARE = {"name": "unet", "arguments": {}, "weights": "none", "freeze_encoder": False}


class StoppedError(Exception):
    """Thrown into a run."""


def model_of() -> SegmentationModel:
    return build_model(ModelSpec(NET["name"], 3, 2, encoder=NET["encoder"], arguments=NET["arguments"])).train()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    encoder = build_model(ModelSpec(NET["name"], 1, 2, encoder=NET["encoder"])).encoder  # type: ignore[arg-type]
    assert encoder is not None
    # timm lets residual paths start at nothing.
    for part in encoder.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
    save_file({name: value.clone() for name, value in encoder.state_dict().items()}, path)
    return path


def recipe_of(tiny: Tiny, data: Path, file: Path, *, epochs: int = 4, **model: object) -> Recipe:
    chosen = {**NET, "weights": str(file), "freeze_encoder": True, **model}
    return tiny(data, epochs=epochs, model=chosen, training={"ema": 0.0})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool, bool]]:
    """Of each step: the epoch, whether the encoder learns, and whether its norms follow the images."""
    steps: list[tuple[int, bool, bool]] = []
    look = callbacks.NanWatch.on_train_batch_end

    def watch(self: object, trainer: object, module: object, *rest: object) -> None:
        encoder = module.model.encoder  # type: ignore[attr-defined]
        norms = [part.training for part in encoder.modules() if isinstance(part, nn.BatchNorm2d)]
        learns = [parameter.grad is not None for parameter in encoder.parameters()]
        assert len(set(norms)) == len(set(learns)) == 1
        steps.append((trainer.current_epoch, learns[0], norms[0]))  # type: ignore[attr-defined]
        look(self, trainer, module, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(callbacks.NanWatch, "on_train_batch_end", watch)
    return steps


@pytest.mark.parametrize(
    ("model", "moment", "norms"),
    [
        ({"unfreeze_at": 2}, 2, (False, True)),
        ({"unfreeze_at": 0.75, "freeze_statistics": True}, 3, (False, False)),
        ({"unfreeze_at": 1, "freeze_statistics": False}, 1, (True, True)),
        ({"freeze_statistics": False}, 4, (True, True)),
    ],
)
def test_an_encoder_learns_from_the_given_moment(
    photos: Folder, tiny: Tiny, tmp_path: Path, weights: Path, seen: list, model: dict, moment: int,
    norms: tuple[bool, bool],
) -> None:  # fmt: skip
    train(recipe_of(tiny, photos(), weights, **model), run=tmp_path / "run", progress=False)
    assert {epoch for epoch, _, _ in seen} == {0, 1, 2, 3}
    assert all(learns == (epoch >= moment) for epoch, learns, _ in seen)
    assert all(follows == norms[epoch >= moment] for epoch, _, follows in seen)


@pytest.mark.usefixtures("save_always")
@pytest.mark.parametrize("stop", [1, 3], ids=["frozen", "unfrozen"])
def test_a_run_goes_on_to_the_same_weights(
    photos: Folder, tiny: Tiny, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    recipe = recipe_of(tiny, photos(), weights, unfreeze_at=2)
    whole = train(recipe, run=tmp_path / "whole", progress=False)

    def cut(self: object, trainer: object, *_: object) -> None:
        if trainer.current_epoch == stop:  # type: ignore[attr-defined]
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.NanWatch, "on_train_batch_start", cut)
        with pytest.raises(StoppedError):
            train(recipe, run=tmp_path / "cut", progress=False)
    run = train(recipe, run=tmp_path / "cut", resume=True, progress=False)
    states = [torch.load(path / "resume.ckpt", weights_only=True)["state_dict"] for path in (whole, run)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_only_what_was_stopped_learns_again() -> None:
    model = model_of()
    assert model.encoder is not None
    first = next(model.encoder.parameters())
    first.requires_grad_(False)
    unfreeze(model, freeze_encoder(model))
    assert not first.requires_grad
    assert all(p.requires_grad for p in model.parameters() if p is not first)
    assert all(part.training for part in model.modules())


def test_statistics_stand_still_while_the_encoder_learns() -> None:
    model = model_of()
    freeze_statistics(model)
    before = copy.deepcopy(model.state_dict())
    model(torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)).square().mean().backward()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert not any("encoder" in name for name in moved)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_does_not_go_together_is_refused(photos: Folder, tiny: Tiny, tmp_path: Path, weights: Path) -> None:
    data = photos()
    for model, said in (
        ({"freeze_encoder": False, "unfreeze_at": 2}, "nothing is frozen"),
        ({**BARE, "freeze_statistics": True}, "no encoder"),
        ({"freeze_encoder": 1, "encoder": "mit_b0", "weights": "none", "unfreeze_at": 2}, "stay random"),
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=said):
            train(recipe_of(tiny, data, weights, **model), run=tmp_path / "run", progress=False)
    with pytest.raises(RecipeError, match="whole number of epochs"):
        make_recipe({"model": {"unfreeze_at": 1.5}})
