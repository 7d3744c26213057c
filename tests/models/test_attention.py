"""Squeeze and excitation against torchvision's, and the gate against its formula."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torchvision.ops import SqueezeExcitation as Reference

from segwright.models.attention import AttentionGate, SqueezeExcitation


def test_squeeze_and_excitation_is_torchvision_s() -> None:
    ours, reference = SqueezeExcitation(32, reduction=4), Reference(32, 8)
    reference.fc1.load_state_dict(ours.squeeze.state_dict())
    reference.fc2.load_state_dict(ours.excite.state_dict())
    x = torch.randn(3, 32, 5, 7)
    torch.testing.assert_close(ours(x), reference(x))
    assert SqueezeExcitation(2)(x[:, :2, :1, :1]).shape == (3, 2, 1, 1)


def test_the_gate_weighs_places_of_all_channels_alike() -> None:
    gate = AttentionGate(6, 10)
    skip, coarse = torch.randn(2, 6, 8, 12), torch.randn(2, 10, 4, 6)
    with torch.no_grad():
        factors = gate(skip, coarse) / skip
        inner = F.conv2d(skip, gate.skip.weight, stride=2) + F.conv2d(coarse, gate.gate.weight, gate.gate.bias)
        weights = torch.sigmoid(F.conv2d(inner.relu(), gate.weigh.weight, gate.weigh.bias))
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    assert factors.min() > 0
    assert factors.max() < 1
    # The four places around the corner of four cells see a mean of their weights, so their sum is the cells' sum.
    around = factors[:, 0, 3:5, 3:5].sum((1, 2))
    torch.testing.assert_close(around, weights[:, 0, 1:3, 1:3].sum((1, 2)))


def test_what_the_coarser_level_says_moves_the_gate() -> None:
    gate = AttentionGate(6, 10)
    skip = torch.randn(2, 6, 8, 12)
    one, other = (gate(skip, torch.randn(2, 10, 4, 6)) for _ in range(2))
    assert not torch.allclose(one, other)
