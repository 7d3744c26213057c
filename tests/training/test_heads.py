"""Models with several heads in training: pieces, losses, processes, and a run from end to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segwright.bundle import load_bundle
from segwright.losses import build_loss
from segwright.models import ModelSpec, SegmentationModel, build_model
from segwright.recipe import Recipe
from segwright.training.memory import in_pieces
from segwright.training.processes import Team, strategy_of
from segwright.training.run import train

ARGUMENTS = {"width": 4, "depth": 2, "norm": "none"}


def network(name: str, **values: object) -> SegmentationModel:
    spec = ModelSpec(name, 1, 2, arguments={**ARGUMENTS, **values}, mean=(0.5,), never_predict=(0,))
    return build_model(spec).train()


@pytest.mark.parametrize("name", ["unet3plus", "multihead"])
def test_a_step_in_pieces_has_the_gradient_of_the_whole_batch(name: str) -> None:
    whole, parted = network(name), network(name)
    parted.load_state_dict(whole.state_dict())
    images, masks = torch.randint(0, 255, (5, 1, 21, 26), dtype=torch.uint8), torch.randint(0, 2, (5, 21, 26))
    loss = build_loss("dice + ce", num_classes=2)
    for model, at_once in ((whole, None), (parted, 2)):
        answer = in_pieces(model, images, at_once=at_once)
        assert isinstance(answer, tuple)
        loss(answer, masks).backward()
    for one, other in zip(parted.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("name", ["unet3plus", "multihead"])
def test_heads_that_answer_in_training_alone_are_no_idle_parts(name: str) -> None:
    model = network(name, norm="batch")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    strategy = strategy_of(Team(0, 2), model, crop_px=(16, 16))
    assert strategy != "auto"
    assert strategy._ddp_kwargs["find_unused_parameters"] is False
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(part.training for part in model.modules())


@pytest.mark.parametrize("name", ["unet3plus", "multihead"])
def test_a_run_trains_all_heads_and_keeps_one_answer(
    photos: Callable[..., Path], tiny: Callable[..., Recipe], tmp_path: Path, name: str
) -> None:
    recipe = tiny(photos(), epochs=2, model={"name": name, "arguments": {"width": 4, "depth": 2}})
    model = load_bundle(train(recipe, run=tmp_path / "run", progress=False)).model
    logits = model(torch.zeros(1, model.spec.in_channels, 20, 20, dtype=torch.uint8))
    assert logits.shape == (1, 2, 20, 20)
