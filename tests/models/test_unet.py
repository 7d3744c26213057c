"""Our own U-Net: the paper's numbers, its switches, and where a pixel of the output looks."""

from __future__ import annotations

import itertools

import pytest
import torch

from segwright.errors import RecipeError
from segwright.models import ModelSpec, build_model
from segwright.models.blocks import ACTIVATIONS, NORMS, BilinearUp
from segwright.models.unet import UNet, unet_input_size


def test_the_paper_takes_572_and_gives_388() -> None:
    with torch.device("meta"):
        net = UNet(1, 2, width=64, norm="none", padding="valid")
        assert net(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert sum(p.numel() for p in net.parameters()) == 31_030_658
    size = unet_input_size(depth=5, padding="valid")
    assert (size.stride, size.margin, size.padding(388)) == (16, 92, (92, 92))


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_input_size_is_what_the_network_takes(depth: int, padding: str) -> None:
    size = unet_input_size(depth=depth, padding=padding)
    net = UNet(1, 2, depth=depth, width=2, padding=padding).eval()
    for side in (size.minimum, size.minimum + size.stride):
        assert side % size.stride == size.offset
        assert net(torch.zeros(1, 1, side, side)).shape[-1] == side - 2 * size.margin


@pytest.mark.parametrize(
    ("norm", "activation", "padding", "up"),
    [
        *itertools.product(NORMS, ["relu"], ["same"], ["transposed"]),
        *itertools.product(["batch"], ACTIVATIONS, ["valid"], ["bilinear"]),
    ],
)
def test_every_switch(norm: str, activation: str, padding: str, up: str) -> None:
    arguments = {"norm": norm, "activation": activation, "padding": padding, "up": up, "depth": 3, "width": 6}
    model = build_model(ModelSpec("unet", 2, 3, arguments={**arguments, "dropout": 0.2})).train()
    logits = model(torch.randint(0, 256, (1, 2, 13, 21), dtype=torch.uint8))
    assert logits.shape == (1, 3, 13, 21)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_answer_stays_where_the_image_is(padding: str) -> None:
    """A change of one pixel changes the logits most at that pixel's place, also through margin and crop."""
    arguments = {"padding": padding, "depth": 2, "width": 8, "norm": "none"}
    model = build_model(ModelSpec("unet", 1, 2, arguments=arguments, mean=(0.5,), std=(0.25,))).eval()
    image = torch.full((1, 1, 41, 37), 128, dtype=torch.uint8)
    moved = torch.zeros(41, 37)
    for row, column in ((20, 18), (9, 30), (30, 7)):
        spot = image.clone()
        spot[0, 0, row, column] = 255
        with torch.inference_mode():
            moved = (model(spot) - model(image)).abs().sum((0, 1))
        touched = moved.nonzero()
        middle = (touched.min(0).values + touched.max(0).values) / 2
        assert (middle - torch.tensor([row, column])).abs().max() <= 1
        assert moved[row, column] > 0


def test_projecting_before_or_after_interpolation_is_the_same() -> None:
    up = BilinearUp(4, 2)
    x = torch.randn(1, 4, 5, 6)
    after = up.project(torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
    torch.testing.assert_close(up(x), after)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "bacth"}, "Did you mean 'batch'"),
        ({"padding": "full"}, "There are: same, valid"),
        ({"depth": 0}, "depth 0"),
        ({"depth": 2.5}, r"depth 2\.5"),
        ({"width": 0}, "width 0"),
        ({"dropout": 1.0}, r"dropout 1\.0"),
    ],
)
def test_values_that_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_model(ModelSpec("unet", 3, 2, arguments=arguments))
