"""Pyramids of context against the library's, and at the sizes where a pooled branch has a single value."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from segwright.models.blocks import NORMS
from segwright.models.pyramid import ASPP, ASPP_RATES, DILATIONS, POOL_GRIDS, ParallelDilation, PyramidPooling

PYRAMIDS = [ASPP, PyramidPooling, ParallelDilation]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("pyramid", PYRAMIDS)
def test_any_norm_trains_on_one_small_image(pyramid: Callable[..., nn.Module], norm: str) -> None:
    net = pyramid(8, 12, norm=norm, activation="relu").train()
    sides = [(3, 5), (2, 2)] if norm in ("batch", "instance") else [(3, 5), (1, 1)]
    for height, width in sides:
        out = net(torch.randn(1, 8, height, width))
        assert out.shape == (1, 12, height, width)
        assert out.isfinite().all()


def test_dilated_branches_see_as_far_as_their_rates() -> None:
    for pyramid, rates in ((ASPP, ASPP_RATES), (ParallelDilation, DILATIONS)):
        net = pyramid(3, 4, norm="none", activation="silu").double()
        x = torch.randn(1, 3, 41, 41, dtype=torch.float64, requires_grad=True)
        for branch, rate in zip(list(net.branches)[-len(rates) :], rates, strict=True):
            (seen,) = torch.autograd.grad(branch(x)[0, :, 20, 20].sum(), x)
            places = seen[0].abs().sum(0).nonzero()
            assert sorted({tuple(place) for place in places.tolist()}) == [
                (row, column) for row in (20 - rate, 20, 20 + rate) for column in (20 - rate, 20, 20 + rate)
            ]


def test_aspp_s_pooled_branch_is_the_mean_of_the_image() -> None:
    net = ASPP(3, 4, norm="batch", activation="relu").eval()
    x = torch.randn(2, 3, 6, 9)
    wanted = torch.relu(net.pooled.project(x.mean((2, 3), keepdim=True))).expand(2, 4, 6, 9)
    torch.testing.assert_close(net.pooled(x), wanted)


def test_every_grid_has_its_own_means() -> None:
    net = PyramidPooling(8, 8, norm="none", activation="silu")
    x = torch.randn(1, 8, 12, 18)
    for grid, pooled in zip(POOL_GRIDS, net.pooled, strict=True):
        cell = x[:, :, : 12 // grid, : 18 // grid].mean((2, 3), keepdim=True)
        wanted = nn.functional.silu(pooled.project(cell))
        torch.testing.assert_close(pooled(x)[:, :, :1, :1], wanted)
