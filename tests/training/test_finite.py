from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segwright.bundle import load_bundle
from segwright.errors import TrainingError
from segwright.losses import WeightedLoss
from segwright.recipe import Recipe
from segwright.tensors import Batch
from segwright.training.module import SegmentationModule
from segwright.training.run import train
from segwright.training.state import all_finite

Tiny = Callable[..., Recipe]
Folder = Callable[..., Path]


def test_one_bad_number_is_found_wherever_it_stands() -> None:
    good = [torch.randn(3, 1000), torch.zeros(0), torch.tensor([2**40]), torch.tensor(1e30)]
    assert all_finite(good)
    assert all_finite([])
    for bad in (math.nan, math.inf, -math.inf):
        for place in (0, 1234, 2999):
            spoilt = good[0].clone()
            spoilt.view(-1)[place] = bad
            assert not all_finite([*good[1:], spoilt])


@pytest.mark.usefixtures("save_always")
def test_a_loss_that_is_no_number_is_named_and_the_run_can_go_on(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(photos(16), epochs=2)  # three steps an epoch
    whole = train(recipe, run=tmp_path / "whole", progress=False)
    seen: list[list[int]] = []
    step, loss = SegmentationModule.training_step, WeightedLoss.forward

    def training_step(self: SegmentationModule, batch: Batch, number: int) -> Tensor:
        seen.append(batch.index.tolist())
        return step(self, batch, number)

    def forward(self: WeightedLoss, logits: Tensor, *rest: object, **more: object) -> Tensor:
        value = loss(self, logits, *rest, **more)
        return value * math.nan if len(seen) == 5 and logits.requires_grad else value

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", training_step)
        patch.setattr(WeightedLoss, "forward", forward)
        with pytest.raises(TrainingError, match=r"since step 5 \(its images: .*optimizer.lr.*kept") as error:
            train(recipe, run=tmp_path / "run", progress=False)
    ids = list(json.loads((tmp_path / "run" / "images.json").read_text()))
    assert f"(its images: {', '.join(ids[i] for i in seen[4])})" in str(error.value)
    state = torch.load(tmp_path / "run" / "resume.ckpt", weights_only=True)
    assert state["global_step"] == 4
    assert all_finite(state["state_dict"].values())
    assert all_finite(load_bundle(tmp_path / "run").model.state_dict().values())
    run = train(recipe, run=tmp_path / "run", resume=True, progress=False)
    states = [torch.load(path / "resume.ckpt", weights_only=True)["state_dict"] for path in (whole, run)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.usefixtures("save_always")
@pytest.mark.parametrize("where", ["weights", "optimiser"])
def test_broken_weights_are_not_saved_though_the_loss_is_a_number(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    recipe = tiny(photos(16), epochs=2)
    optimizer_step = SegmentationModule.optimizer_step

    def spoil(self: SegmentationModule, *arguments: object) -> None:
        optimizer_step(self, *arguments)
        if self.global_step + 1 == 6:
            optimizer = self.trainer.optimizers[0]
            values = (
                next(iter(optimizer.state.values()))["exp_avg"] if where == "optimiser" else self.model.parameters()
            )
            with torch.no_grad():
                (values if isinstance(values, Tensor) else next(values)).view(-1)[0] = math.inf

    monkeypatch.setattr(SegmentationModule, "optimizer_step", spoil)
    with pytest.raises(TrainingError, match=r"weights are no longer numbers, at step 6"):
        train(recipe, run=tmp_path / "run", progress=False)
    state = torch.load(tmp_path / "run" / "resume.ckpt", weights_only=True)
    assert state["global_step"] < 6
    assert all_finite(state["state_dict"].values())
    assert all_finite(load_bundle(tmp_path / "run").model.state_dict().values())
