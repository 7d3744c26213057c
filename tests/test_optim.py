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
from segwright.optim import SCHEDULES, WARMUP_START, build_optimizer, parameter_groups, schedule_factor


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
        return schedule_factor(name, progress, warmup=0.2, final_factor=0.01)

    assert at(0.0) == pytest.approx(WARMUP_START)
    assert at(0.1) == pytest.approx((1 + WARMUP_START) / 2)
    assert at(0.2) == pytest.approx(1.0)
    assert at(0.6) == pytest.approx(middle)
    assert at(1.0) == pytest.approx(1.0 if name == "constant" else 0.01)
    assert at(2.0) == at(1.0)
    assert at(-1.0) == at(0.0)


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    warmup=st.floats(0, 1),
    final=st.floats(0, 1),
    progress=st.lists(st.floats(0, 1), min_size=2, max_size=8),
)
def test_a_schedule_climbs_then_only_falls(name: str, warmup: float, final: float, progress: list[float]) -> None:
    points = sorted(progress)
    factors = [schedule_factor(name, p, warmup=warmup, final_factor=final) for p in points]
    assert all(math.isfinite(f) and 0 <= f <= 1 + 1e-12 for f in factors)
    climb = [f for p, f in zip(points, factors, strict=True) if p < warmup]
    fall = [f for p, f in zip(points, factors, strict=True) if p >= warmup]
    assert climb == sorted(climb)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(fall))
