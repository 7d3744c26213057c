"""Parameter groups, optimisers and schedules."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from segwright.errors import RecipeError
from segwright.optim import (
    OPTIMIZERS,
    SCHEDULES,
    WARMUP_START,
    Plateau,
    Shape,
    add_penalty,
    build_optimizer,
    convolution_weights,
    parameter_groups,
    schedule_factor,
)


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.head = nn.Conv2d(4, 2, 1)


def groups_of(model: TwoParts, *, factor: float = 0.3) -> dict[str, dict]:
    groups = parameter_groups(model, encoder=model.encoder, lr=1e-3, weight_decay=0.05, encoder_lr_factor=factor)
    return {group["name"]: group for group in groups}


def test_every_parameter_stands_in_the_group_it_belongs_to() -> None:
    model = TwoParts()
    groups = groups_of(model)
    members = {name: {id(p) for p in group["params"]} for name, group in groups.items()}
    assert members == {
        "encoder": {id(model.encoder[0].weight)},
        "encoder_no_decay": {id(p) for p in (model.encoder[0].bias, model.encoder[1].weight, model.encoder[1].bias)},
        "rest": {id(model.head.weight)},
        "rest_no_decay": {id(model.head.bias), id(model.pos_embed)},
    }
    assert {name: (g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "encoder": (3e-4, 0.05),
        "encoder_no_decay": (3e-4, 0.0),
        "rest": (1e-3, 0.05),
        "rest_no_decay": (1e-3, 0.0),
    }
    assert all(group["lr"] == group["initial_lr"] for group in groups.values())


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    model = TwoParts()
    model.encoder.requires_grad_(False)
    assert set(groups_of(model)) == {"rest", "rest_no_decay"}
    model.requires_grad_(False)
    with pytest.raises(RecipeError, match="no parameter is left to learn"):
        groups_of(model)


def test_a_factor_without_an_encoder_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"encoder_lr_factor 0\.3"):
        parameter_groups(TwoParts(), encoder=None, lr=1e-3, weight_decay=0.0, encoder_lr_factor=0.3)
    groups = parameter_groups(TwoParts(), encoder=None, lr=1e-3, weight_decay=0.0, encoder_lr_factor=1.0)
    assert {group["name"] for group in groups} == {"rest", "rest_no_decay"}


def test_fused_and_plain_adamw_take_the_same_step() -> None:
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = TwoParts()
        optimizer = build_optimizer("adamw", list(groups_of(model).values()), fused=fused)
        for _ in range(3):
            optimizer.zero_grad()
            model.head(model.encoder(torch.ones(2, 3, 5, 5))).square().sum().backward()
            optimizer.step()
        results.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(("name", "middle"), [("constant", 1.0), ("cosine", 0.505), ("poly", 0.01 + 0.99 * 0.5**0.9)])
def test_known_points(name: str, middle: float) -> None:
    def at(progress: float) -> float:
        return schedule_factor(name, progress, shape=Shape(warmup=0.2, final_factor=0.01))

    assert at(0.0) == pytest.approx(WARMUP_START)
    assert at(0.1) == pytest.approx((1 + WARMUP_START) / 2)
    assert at(0.2) == pytest.approx(1.0)
    assert at(0.6) == pytest.approx(middle)
    assert at(1.0) == pytest.approx(1.0 if name == "constant" else 0.01)
    assert at(2.0) == at(1.0)
    assert at(-1.0) == at(0.0)


@given(
    name=st.sampled_from(sorted(set(SCHEDULES) - {"restarts", "one_cycle"})),
    warmup=st.floats(0, 1),
    final=st.floats(0, 1),
    progress=st.lists(st.floats(0, 1), min_size=2, max_size=8),
)
def test_a_schedule_climbs_then_only_falls(name: str, warmup: float, final: float, progress: list[float]) -> None:
    points = sorted(progress)
    factors = [schedule_factor(name, p, shape=Shape(warmup=warmup, final_factor=final)) for p in points]
    assert all(math.isfinite(f) and 0 <= f <= 1 + 1e-12 for f in factors)
    climb = [f for p, f in zip(points, factors, strict=True) if p < warmup]
    fall = [f for p, f in zip(points, factors, strict=True) if p >= warmup]
    assert climb == sorted(climb)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(fall))


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"one_cycle"}))
def test_a_warmup_stands_before_any_schedule(name: str) -> None:
    shape = Shape(warmup=0.2, final_factor=0.1, cycles=3, milestones=(0.5,))
    climb = [schedule_factor(name, share / 10 * 0.2, shape=shape) for share in range(11)]
    assert climb == pytest.approx([WARMUP_START + (1 - WARMUP_START) * share / 10 for share in range(11)])
    # What follows is the schedule itself over the rest, but for `step`, whose milestones are of the whole budget.
    plain = Shape(final_factor=0.1, cycles=3, milestones=(0.375,))
    for share in (0.1, 0.3, 0.45, 0.8):
        after = schedule_factor(name, 0.2 + 0.8 * share, shape=shape)
        assert after == pytest.approx(schedule_factor(name, share, shape=plain))


def test_steps_drop_at_their_milestones() -> None:
    shape = Shape(milestones=(0.3, 0.6), drop=0.5)
    assert [schedule_factor("step", p, shape=shape) for p in (0, 0.29, 0.3, 0.59, 0.6, 1)] == [
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.25,
    ]
    with pytest.raises(RecipeError, match="milestones"):
        Shape(milestones=(0.6, 0.3))


def test_restarts_are_torch_s() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2, eta_min=0.01)
    shape = Shape(final_factor=0.01, cycles=3, growth=2.0)
    for step in range(69):
        assert schedule_factor("restarts", step / 70, shape=shape) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert shape.cycle_ends() == pytest.approx((1 / 7, 3 / 7, 1))


def test_one_cycle_is_torch_s() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=101, cycle_momentum=False)
    for step in range(101):
        # Theirs places the top at 0.3 * 101 - 1 steps of 100.
        if step in (0, 100):
            wanted = optimizer.param_groups[0]["lr"]
            assert schedule_factor("one_cycle", step / 100, shape=Shape()) == pytest.approx(wanted, abs=1e-5)
        optimizer.step()
        theirs.step()
    points = [schedule_factor("one_cycle", p / 100, shape=Shape()) for p in range(101)]
    assert points.index(max(points)) == 30


def test_exponential_falls_by_equal_shares() -> None:
    factors = [schedule_factor("exponential", p / 10, shape=Shape(final_factor=0.01)) for p in range(11)]
    shares = [later / earlier for earlier, later in pairwise(factors)]
    assert shares == pytest.approx([shares[0]] * 10)
    assert factors[-1] == pytest.approx(0.01)


def test_plateau_is_torch_s() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.1, patience=3, threshold=0.0, threshold_mode="abs"
    )
    ours = Plateau(drop=0.1, patience=3)
    scores = [0.1, 0.2, 0.2, 0.1, 0.2, 0.15, 0.19, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    for epoch, value in enumerate(scores):
        ours.seen(value, epoch=epoch)
        theirs.step(value)
        assert ours.factor == pytest.approx(optimizer.param_groups[0]["lr"])
    again = Plateau(drop=0.1, patience=3)
    again.load_state_dict(ours.state_dict())
    assert again.state_dict() == ours.state_dict()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_learns(name: str) -> None:
    model = TwoParts()
    groups = parameter_groups(model, encoder=model.encoder, lr=1e-2, weight_decay=1e-4, encoder_lr_factor=1.0)
    optimizer = build_optimizer(name, groups, fused=True, nesterov=name == "sgd")

    def loss() -> torch.Tensor:
        return (model.head(model.encoder(torch.ones(2, 3, 5, 5))) - 1).square().mean()

    before = loss().item()
    for _ in range(30):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.5 * before


def test_names_and_momenta_that_cannot_be() -> None:
    groups = list(groups_of(TwoParts()).values())
    with pytest.raises(RecipeError, match="nesterov with adam"):
        build_optimizer("adam", groups, fused=False, nesterov=True)


def test_early_layers_learn_more_slowly() -> None:
    model = TwoParts()
    groups = parameter_groups(
        model, encoder=model.encoder, lr=1.0, weight_decay=0.1, encoder_lr_factor=0.5, layer_decay=0.1
    )
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == pytest.approx(
        {
            "encoder_00": 0.05,
            "encoder_00_no_decay": 0.05,
            "encoder_01_no_decay": 0.5,
            "rest": 1.0,
            "rest_no_decay": 1.0,
        }
    )
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert groups[-1]["name"].startswith("rest")


def test_the_penalty_is_the_gradient_of_the_squares() -> None:
    model = TwoParts()
    weights = convolution_weights(model)
    assert {id(weight) for weight in weights} == {id(model.encoder[0].weight), id(model.head.weight)}
    model.head(model.encoder(torch.ones(2, 3, 5, 5))).sum().backward()
    before = [weight.grad.clone() for weight in weights]
    add_penalty(weights, l2=0.3)
    for weight, old in zip(weights, before, strict=True):
        torch.testing.assert_close(weight.grad, old + 0.3 * weight.detach())
