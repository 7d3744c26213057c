"""Weights that are drawn anew: as torch draws them, by the seed, and never those that were loaded."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from segwright.models import ModelSpec, build_model
from segwright.models.initialization import INITIALIZATIONS, draw_weights, fans


def unet() -> nn.Module:
    return build_model(ModelSpec("unet", 3, 4, arguments={"width": 8, "depth": 3}))


def test_spreads_are_torch_s() -> None:
    layers = {"conv": nn.Conv2d(32, 64, 3), "linear": nn.Linear(128, 256)}
    theirs = {
        "xavier": nn.init.xavier_uniform_,
        "kaiming": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
        "orthogonal": lambda weight: nn.init.orthogonal_(weight, gain=math.sqrt(2)),
    }
    assert set(theirs) == set(INITIALIZATIONS)
    for name, draw in theirs.items():
        for layer in layers.values():
            draw_weights(layer, name, seed=0)
            wanted = draw(torch.empty_like(layer.weight))
            assert layer.weight.std().item() == pytest.approx(wanted.std().item(), rel=0.05)
            assert layer.weight.abs().max().item() == pytest.approx(wanted.abs().max().item(), rel=0.25)
            assert not layer.bias.any()


def test_orthogonal_rows() -> None:
    layer = nn.Conv2d(16, 32, 3)
    draw_weights(layer, "orthogonal", seed=1)
    rows = layer.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(32), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1, groups=64),
        nn.ConvTranspose2d(64, 64, 2, stride=2),
        nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1),
    ],
    ids=["plain", "depthwise", "transposed", "transposed_overlapping"],
)
def test_kaiming_keeps_the_size_of_signals_through_relu(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    draw_weights(layer, "kaiming", seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        out = layer(torch.relu(torch.randn(4, 64, 24, 24)))[..., 4:-4, 4:-4]
    assert out.square().mean().item() == pytest.approx(1.0, rel=0.35)


def test_fans_of_groups_and_strides() -> None:
    assert fans(nn.Conv2d(8, 16, 3)) == (72.0, 144.0)
    assert fans(nn.Conv2d(8, 8, 3, groups=8)) == (9.0, 9.0)
    assert fans(nn.ConvTranspose2d(8, 4, 2, stride=2)) == (8.0, 16.0)
    assert fans(nn.Linear(5, 7)) == (5.0, 7.0)


def test_the_seed_decides_and_no_other_chance_is_touched() -> None:
    models = [unet() for _ in range(3)]
    chance = torch.get_rng_state()
    drawn = [draw_weights(model, "kaiming", seed=seed) for model, seed in zip(models, (5, 5, 6), strict=True)]
    assert torch.equal(chance, torch.get_rng_state())
    assert min(drawn) == len(
        [layer for layer in models[0].modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    )
    first, same, other = ([*model.parameters()] for model in models)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])


def test_a_loaded_encoder_keeps_its_weights() -> None:
    model = build_model(ModelSpec("fpn", 3, 4, encoder="tu-test_resnet"))
    assert model.encoder is not None
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draw_weights(model, "xavier", seed=0, keep=model.encoder)
    encoder = tuple(f"net.encoder.{name}" for name in model.encoder.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name in encoder or value.ndim < 2), name


def test_default_changes_nothing() -> None:
    model = unet()
    before = [value.clone() for value in model.parameters()]
    assert draw_weights(model, "default", seed=0) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
