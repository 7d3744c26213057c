"""Our own U-Net: the paper's numbers, its switches, and where a pixel of the output looks."""

from __future__ import annotations

import itertools

import pytest
import torch
import torchvision
from torchvision.ops import StochasticDepth

from segwright.errors import RecipeError
from segwright.models import ModelSpec, build_model
from segwright.models.blocks import ACTIVATIONS, NORMS, BilinearUp, ResidualBlock
from segwright.models.unet import UNet
from segwright.models.unet_switches import UNetSwitches, unet_input_size


def test_the_paper_takes_572_and_gives_388() -> None:
    with torch.device("meta"):
        net = UNet(1, 2, switches=UNetSwitches(width=64, norm="none", padding="valid"))
        assert net(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert sum(p.numel() for p in net.parameters()) == 31_030_658
    size = unet_input_size(UNetSwitches(padding="valid"))
    assert (size.stride, size.margin, size.padding(388)) == (16, 92, (92, 92))


@pytest.mark.parametrize(
    ("depth", "extra", "convolutions"),
    [(1, 0, 2), (2, 0, 2), (3, 0, 2), (4, 0, 2), (2, 2, 2), (1, 0, 3), (3, 1, [1, 3, 2])],
)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_input_size_is_what_the_network_takes(
    depth: int, extra: int, convolutions: int | list[int], padding: str
) -> None:
    switches = UNetSwitches(depth=depth, extra_levels=extra, convolutions=convolutions, width=2, padding=padding)
    size = unet_input_size(switches)
    net = UNet(1, 2, switches=switches).eval()
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


def names_and_shapes(name: str, **arguments: object) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        net = build_model(ModelSpec(name, 3, 2, arguments=arguments)).net
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def test_bundles_of_the_first_version_fit_still() -> None:
    """The names by which they were saved, and the sum of their shapes."""
    shapes = names_and_shapes("unet", depth=2, width=4, dropout=0.5)
    convolutions = [f"{block}.{place}" for block in ("down.0", "down.1", "join.0") for place in (0, 3)]
    norms = [f"{block}.{place}" for block in ("down.0", "down.1", "join.0") for place in (1, 4)]
    wanted = {f"{key}.weight" for key in convolutions} | {
        f"{key}.{part}"
        for key in norms
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    wanted |= {f"{key}.{part}" for key in ("up.0", "head") for part in ("weight", "bias")}
    assert set(shapes) == wanted
    assert shapes["join.0.0.weight"] == (4, 8, 3, 3)
    assert shapes["up.0.weight"] == (8, 4, 2, 2)


def test_presets_are_what_they_are_called() -> None:
    with torch.device("meta"):
        valid = build_model(ModelSpec("unet_valid", 1, 2)).net
        vgg = build_model(ModelSpec("unet_vgg16", 3, 2, arguments={"norm": "none"})).net
        reference = torchvision.models.vgg16().features
    assert sum(p.numel() for p in valid.parameters()) == 31_030_658
    of_vgg = [tuple(p.shape) for p in reference.parameters()]
    assert [tuple(p.shape) for p in vgg.get_submodule("down").parameters()] == of_vgg


def test_separable_convolutions_are_where_they_should_be() -> None:
    def groups(choice: str) -> dict[str, list[int]]:
        net = build_model(ModelSpec("unet", 3, 2, arguments={"depth": 2, "width": 4, "convolution": choice})).net
        return {
            part: [layer.groups for layer in net.get_submodule(part).modules() if isinstance(layer, torch.nn.Conv2d)]
            for part in ("down", "join")
        }

    assert groups("plain") == {"down": [1, 1, 1, 1], "join": [1, 1]}
    assert groups("separable_decoder") == {"down": [1, 1, 1, 1], "join": [8, 1, 4, 1]}
    assert groups("separable") == {"down": [1, 4, 1, 4, 1, 8, 1], "join": [8, 1, 4, 1]}


def test_later_blocks_are_skipped_more_often() -> None:
    arguments = {"depth": 2, "width": 4, "convolution": "residual", "stochastic_depth": 0.6}
    net = build_model(ModelSpec("unet", 3, 2, arguments=arguments)).net
    rates = [layer.p for layer in net.modules() if isinstance(layer, StochasticDepth)]
    assert rates == pytest.approx([0.2, 0.4, 0.6])
    block = ResidualBlock(4, 4, norm="none", activation="relu", stochastic_depth=0.5).train()
    x = torch.rand(64, 4, 5, 5)
    whole = (block(x) == x).flatten(1).all(1)
    assert 16 < int(whole.sum()) < 48
    assert not (block.eval()(x) == x).flatten(1).all(1).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "bacth"}, "Did you mean 'batch'"),
        ({"padding": "full"}, "There are: same, valid"),
        ({"depth": 0}, "depth 0"),
        ({"depth": 2.5}, r"depth 2\.5"),
        ({"width": 0}, "width 0"),
        ({"width": [4, 8]}, r"width \[4, 8\] at depth 5.*Give 5 numbers"),
        ({"width": [4, 8, 0], "depth": 3}, "whole numbers of at least 1"),
        ({"width": "32"}, "width 32"),
        ({"convolutions": 0}, "convolutions 0"),
        ({"convolutions": [2, 2.5], "depth": 2}, "whole numbers"),
        ({"extra_levels": -1}, "extra_levels -1"),
        ({"extra_levels": 4}, "Use 0 to 3 at depth 5"),
        ({"convolution": "separate"}, "Did you mean 'separable'"),
        ({"skips": "concat"}, "Did you mean 'concatenate'"),
        ({"bottleneck": "asp"}, "Did you mean 'aspp'"),
        ({"stochastic_depth": 0.1}, "Set convolution to residual"),
        ({"stochastic_depth": 1, "convolution": "residual"}, "stochastic_depth 1"),
        ({"dropout": 1.0}, r"dropout 1\.0"),
    ],
)
def test_values_that_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_model(ModelSpec("unet", 3, 2, arguments=arguments))
