"""Dropout, its schedules and stochastic depth: where they go, how often they drop; weights keep their names."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from segwright.errors import RecipeError
from segwright.models import ModelSpec, SegmentationModel, build_model
from segwright.models.regularization import (
    DROPOUT_SCHEDULES,
    DropoutSchedule,
    ScheduledDropout,
    set_dropout,
    set_stochastic_depth,
)

SMALL_DPT = {"decoder_intermediate_channels": [8, 8, 8, 8], "decoder_fusion_channels": 8}
SMALL_FPN = {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32}


def model_of(name: str, *, encoder: str | None = None, **arguments: object) -> SegmentationModel:
    return build_model(ModelSpec(name, 3, 4, encoder=encoder, arguments=arguments, mean=(0.4,), std=(0.2,)))


def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)


def answers_vary(model: SegmentationModel) -> bool:
    """Whether two passes in training differ, with norms that do not."""
    model.train()
    images = pictures()
    with torch.no_grad():
        return not torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    ("name", "encoder", "arguments"),
    [
        ("fpn", "tu-test_resnet", SMALL_FPN),
        ("unet", None, {"width": 4, "depth": 3}),
        ("swiftnet", "tu-test_resnet", {"width": 16}),
        ("encoder_decoder", None, {"width": 4}),
    ],
)
def test_any_model_takes_dropout_and_keeps_its_names(name: str, encoder: str | None, arguments: dict) -> None:
    model = model_of(name, encoder=encoder, **arguments)
    names, images = list(model.state_dict()), pictures()
    plain = model.eval()(images)
    assert set_dropout(model, 0.5) == 1
    assert answers_vary(model)
    assert answers_vary(copy.deepcopy(model))
    DropoutSchedule(model, "falling").follow(0.3)
    assert answers_vary(model)
    assert list(model.state_dict()) == names
    fresh = model_of(name, encoder=encoder, **arguments)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(images), fresh.eval()(images))
    assert plain.shape == images[:, :1].expand(-1, 4, -1, -1).shape
    set_dropout(model, 0.0)


def test_own_layers_are_set_before_one_is_added() -> None:
    model = model_of("unet", width=4, depth=3, dropout=0.1)
    assert set_dropout(model, 0.4) == 2
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout2d)] == [0.4, 0.4]
    assert set_dropout(model, 0.0) == 2
    assert not answers_vary(model)


def test_the_added_one_stands_before_the_head() -> None:
    model = model_of("unet", width=4, depth=3)
    set_dropout(model, 0.5)
    head = model.net.get_submodule("head")
    assert [name for name, layer in model.net.named_modules() if isinstance(layer, nn.Dropout2d)] == [
        "head.dropout_before"
    ]
    seen: list[torch.Tensor] = []
    head.get_submodule("dropout_before").register_forward_hook(lambda layer, inputs, out: seen.append(out))
    torch.manual_seed(0)
    model.train()(pictures())
    per_channel = seen[0].flatten(2)
    gone = (per_channel == 0).all(-1)
    assert gone.any()
    assert not gone.all()


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_scheduled_dropout_is_dropout(channels: bool, rate: float) -> None:
    torch.manual_seed(0)
    layer = ScheduledDropout(0.5, channels=channels).train()
    layer.follow(2 * rate)
    x = torch.ones(64, 32, 8, 8)
    out = layer(x)
    assert out.eq(0).float().mean().item() == pytest.approx(rate, abs=0.04)
    kept = out[out != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate) if rate < 1 else 0.0))
    per_channel = out.flatten(2)
    assert bool((per_channel == per_channel[..., :1]).all()) == (channels or rate in (0.0, 1.0))
    assert torch.equal(layer.eval()(x), x)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    assert not layer.state_dict()


def test_rates_follow_the_budget() -> None:
    points = {name: [factor(progress) for progress in (0.0, 0.1, 1.0)] for name, factor in DROPOUT_SCHEDULES.items()}
    assert points["constant"] == [1, 1, 1]
    assert points["rising"] == pytest.approx([0, 0.632, 1], abs=1e-3)
    assert points["falling"] == pytest.approx([1, 0.9, 0])
    model = model_of("unet", width=4, depth=3, dropout=0.2)
    schedule = DropoutSchedule(model, "falling")
    schedule.follow(0.75)
    assert [layer.keep.item() for layer in schedule.layers] == pytest.approx([0.95, 0.95])


def test_a_compiled_network_follows_without_compiling_again() -> None:
    count = 0

    def counting(graph: torch.fx.GraphModule, example: list[torch.Tensor]) -> object:
        nonlocal count
        count += 1
        return graph.forward

    layer = ScheduledDropout(0.5, channels=False).train()
    compiled = torch.compile(layer, backend=counting)
    x = torch.ones(1000)
    dropped = []
    for factor in (0.0, 0.4, 1.0):
        layer.follow(factor)
        dropped.append(compiled(x).eq(0).float().mean().item())
    assert count == 1
    assert dropped == pytest.approx([0, 0.2, 0.5], abs=0.07)


def test_what_no_schedule_can_do() -> None:
    with pytest.raises(RecipeError, match=r"schedule 'rising' for model 'unet', which has no dropout"):
        DropoutSchedule(model_of("unet", width=4, depth=2), "rising")
    assert not DropoutSchedule(model_of("unet", width=4, depth=2), "constant").layers


@pytest.mark.parametrize(
    "encoder", ["resnet18", "resnet50", "mit_b0", "tu-test_resnet", "tu-test_convnext", "tu-test_vit"]
)
def test_blocks_are_skipped_the_later_the_more(encoder: str) -> None:
    name = "dpt" if encoder == "tu-test_vit" else "fpn"
    arguments = SMALL_DPT if name == "dpt" else {**SMALL_FPN, "decoder_dropout": 0.0}
    model = model_of(name, encoder=encoder, **arguments)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):  # some start with branches that give nothing
            nn.init.ones_(layer.weight)
    names, images = list(model.state_dict()), pictures()
    blocks = set_stochastic_depth(model, 0.5)
    layers = [layer for layer in model.modules() if type(layer).__name__ in ("StochasticDepth", "DropPath")]
    rates = [layer.p for layer in layers]
    assert rates == sorted(rates)
    assert sorted(set(rates)) == pytest.approx([0.5 * number / blocks for number in range(1, blocks + 1)])
    assert answers_vary(model)
    assert set_stochastic_depth(model, 0.3) == blocks
    assert max(layer.p for layer in model.modules() if type(layer).__name__ == "StochasticDepth") == 0.3
    assert list(model.state_dict()) == names
    set_stochastic_depth(model, 0.0)
    if name == "fpn":
        assert not answers_vary(model)
    fresh = model_of(name, encoder=encoder, **arguments)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(images), fresh.eval()(images))


def test_a_skipped_branch_leaves_the_block_s_input() -> None:
    model = model_of("fpn", encoder="resnet18", **SMALL_FPN)
    set_stochastic_depth(model, 0.9)
    block = model.net.get_submodule("encoder.layer4.1").train()
    torch.manual_seed(0)
    x = torch.rand(64, 512, 2, 2)
    with torch.no_grad():
        same = (block(x) == x).flatten(1).all(1)
    assert 0.7 < same.float().mean().item() < 1


def test_a_model_without_residual_blocks_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"model 'fpn' with encoder 'vgg11', which has no residual block.*resnet18"):
        set_stochastic_depth(model_of("fpn", encoder="vgg11", **SMALL_FPN), 0.2)
    assert set_stochastic_depth(model_of("unet", width=4, depth=2), 0.0) == 0
