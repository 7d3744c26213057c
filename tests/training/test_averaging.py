"""Averages of the weights: which count, how much, and that a run goes on with them exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

from segwright.bundle import load_bundle
from segwright.errors import RecipeError
from segwright.models import SegmentationModel
from segwright.optim import Shape
from segwright.recipe import Recipe, make_recipe
from segwright.training.averaging import Averaging, WeightAverage
from segwright.training.callbacks import NanWatch
from segwright.training.module import SegmentationModule
from segwright.training.run import train

Tiny = Callable[..., Recipe]
Folder = Callable[..., Path]
RESTARTS = {"name": "restarts", "cycles": 2, "warmup": 0.0}


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def moving(model: nn.Module, *, decay: float) -> WeightAverage:
    return WeightAverage(model, rule=Averaging("moving", decay=decay))


def test_a_moving_average_follows_parameters_and_statistics() -> None:
    model = network()
    average = moving(model, decay=0.9)
    with torch.no_grad():
        for value in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            value.fill_(5.0)
    before = [value.clone() for value in average.model.state_dict().values()]
    average.take(model, step=10**6)
    for old, (name, new) in zip(before, average.model.state_dict().items(), strict=True):
        if new.is_floating_point():
            assert torch.allclose(new, 0.9 * old + 0.1 * 5.0), name
    for step in range(1, 501):
        average.take(model, step=10**6 + step)
    assert torch.allclose(average.model[0].weight, torch.full_like(average.model[0].weight, 5.0))


def test_the_first_steps_forget_the_start() -> None:
    model = network()
    average = moving(model, decay=0.9999)
    with torch.no_grad():
        model[0].weight.fill_(3.0)
    for step in range(60):
        average.follow(model, step=step, progress=0.0)
    assert torch.allclose(average.model[0].weight, model[0].weight, atol=0.05)


def test_the_average_is_never_trained() -> None:
    average = moving(network(), decay=0.9).train()
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


def test_an_equal_average_is_torch_s() -> None:
    model = network()
    theirs = AveragedModel(model, use_buffers=True)
    ours = WeightAverage(model, rule=Averaging("tail", share=0.5))
    for step in range(1, 11):
        with torch.no_grad():
            for value in (*model.parameters(), model[1].running_mean, model[1].running_var):
                value.normal_()
        ours.follow(model, step=step, progress=step / 10)
        assert ours.exists == (step > 5)
        if step > 5:
            theirs.update_parameters(model)
    assert ours.count == 5
    for name, value in theirs.module.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name], value, msg=lambda text, name=name: name + text)


def test_weights_of_a_step_count_once_and_a_longer_budget_forgets_them() -> None:
    model = network()
    average = WeightAverage(model, rule=Averaging("tail", share=0.5))
    for _ in range(3):
        average.follow(model, step=9, progress=0.9)
    assert average.count == 1
    average.follow(model, step=10, progress=0.4)
    assert not average.exists


@given(cycles=st.integers(1, 6), growth=st.floats(0.5, 3), warmup=st.floats(0, 0.9), steps=st.integers(40, 400))
def test_each_cycle_counts_once_at_its_end(cycles: int, growth: float, warmup: float, steps: int) -> None:
    ends = Shape(warmup=warmup, cycles=cycles, growth=growth).cycle_ends()
    rule = Averaging("cycles", ends=ends)
    taken = [step for step in range(1, steps + 1) if rule.takes((step - 1) / steps, step / steps)]
    # Cycles shorter than a step end together.
    first = {min(step for step in range(1, steps + 1) if step / steps >= end - 1e-9) for end in ends}
    assert taken == sorted(first)
    assert taken[-1] == steps


def weights_of(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.double().flatten() for value in model.state_dict().values()])


@pytest.mark.parametrize("name", ["tail", "cycles"])
def test_the_average_of_a_run_is_the_mean_of_its_weights(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Four epochs of three steps: those of 7 to 12 count, or the ends of two cycles, 6 and 12."""
    seen: dict[int, torch.Tensor] = {}
    scored: dict[int, torch.Tensor] = {}
    step, score = SegmentationModule.optimizer_step, SegmentationModule.validation_step

    def noted(self: SegmentationModule, *arguments: object) -> None:
        step(self, *arguments)
        seen[self.global_step + 1] = weights_of(self.model)

    def also_noted(self: SegmentationModule, *arguments: object) -> None:
        scored[self.global_step] = weights_of(self.best)
        score(self, *arguments)

    monkeypatch.setattr(SegmentationModule, "optimizer_step", noted)
    monkeypatch.setattr(SegmentationModule, "validation_step", also_noted)
    training = {"swa": 0.5} if name == "tail" else {"average_cycles": True}
    recipe = tiny(photos(16), epochs=4, training=training, schedule=RESTARTS)
    run = train(recipe, run=tmp_path / "run", progress=False)
    assert sorted(scored) == [3, 6, 9, 12]
    if name == "tail":
        wanted = {3: [3], 6: [6], 9: [7, 8, 9], 12: list(range(7, 13))}
    else:
        wanted = {3: [3], 6: [6], 9: [6], 12: [6, 12]}
    counted = torch.tensor([not key.endswith("num_batches_tracked") for key, value in
                            load_bundle(run).model.state_dict().items() for _ in range(value.numel())])  # fmt: skip
    for at, steps in wanted.items():
        mean = torch.stack([seen[number] for number in steps]).mean(0)
        torch.testing.assert_close(scored[at][counted], mean[counted], rtol=1e-5, atol=1e-6)
    words = {"tail": "of the last 50% of the budget", "cycles": "at the end of each of 2 cycles"}
    assert f"average  equal average of the weights {words[name]}\n" in (run / "log.txt").read_text()


class StoppedError(Exception):
    """Thrown into a run."""


@pytest.mark.usefixtures("save_always")
@pytest.mark.parametrize("training", [{"swa": 0.6}, {"average_cycles": True}], ids=["tail", "cycles"])
def test_a_run_that_was_cut_short_goes_on_to_the_same_average(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: dict[str, object]
) -> None:
    parts = {"model": {"dropout": 0.3, "dropout_schedule": "rising"}, "schedule": RESTARTS, "training": training}
    recipe = tiny(photos(16), epochs=4, **parts)
    whole = train(recipe, run=tmp_path / "whole", progress=False)

    def cut(self: object, trainer: object, *_: object) -> None:
        if trainer.global_step == 8:  # type: ignore[attr-defined]
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(NanWatch, "on_train_batch_start", cut)
        with pytest.raises(StoppedError):
            train(recipe, run=tmp_path / "cut", progress=False)
    run = train(recipe, run=tmp_path / "cut", resume=True, progress=False)
    states = [torch.load(path / "resume.ckpt", weights_only=True) for path in (whole, run)]
    assert states[0]["average"] == states[1]["average"]
    assert states[0]["average"]["count"] == (2 if "average_cycles" in training else 8)
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name]), name


def test_cycles_by_the_clock_all_count(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(photos(), epochs=None, schedule=RESTARTS, training={"minutes": 0.04, "average_cycles": True})
    run = train(recipe, run=tmp_path / "run", progress=False)
    state = torch.load(run / "resume.ckpt", weights_only=True)
    assert state["average"]["count"] == 2
    assert state["average"]["last_step"] == state["global_step"]
    assert isinstance(load_bundle(run).model, SegmentationModel)


def test_averages_that_exclude_one_another() -> None:
    with pytest.raises(RecipeError, match="not both"):
        make_recipe({"training": {"swa": 0.2, "average_cycles": True}})
    with pytest.raises(RecipeError, match="score moves once a cycle"):
        make_recipe({"training": {"early_stopping": 5, "average_cycles": True}})


def test_cycles_want_restarts(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"schedule 'cosine', which has no cycles"):
        train(tiny(photos(), training={"average_cycles": True}), run=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
