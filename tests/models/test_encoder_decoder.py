"""The networks of the VOC report: its parameter counts, its shapes, and skips that do something."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from segwright.errors import RecipeError
from segwright.models import MODELS, ModelSpec, build_model

REPORTED = {"encoder_decoder": 5_500_245, "residual_autoencoder": 8_643_893, "unet_without_pooling": 34_526_421}


def spec_of(name: str, **arguments: object) -> ModelSpec:
    return ModelSpec(name, 3, 21, arguments=dict(arguments))


@pytest.mark.parametrize(("name", "count"), REPORTED.items())
def test_parameters_and_shapes_are_the_report_s(name: str, count: int) -> None:
    with torch.device("meta"):
        net = build_model(spec_of(name)).net
        assert sum(parameter.numel() for parameter in net.parameters()) == count
        assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 21, 224, 224)


def test_the_deepest_features_have_the_report_s_sizes() -> None:
    with torch.device("meta"):
        images = torch.zeros(1, 3, 224, 224)
        assert build_model(spec_of("encoder_decoder")).net.down(images).shape == (1, 512, 7, 7)
        x, sides = images, []
        for block in build_model(spec_of("unet_without_pooling")).net.down:
            x = block(x)
            sides.append((x.shape[1], x.shape[2]))
    assert sides == [(64, 220), (128, 216), (256, 212), (512, 208), (1024, 204)]


def test_a_forward_pass_without_pooling_costs_three_teraflop() -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build_model(spec_of("unet_without_pooling")).net(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() / 1e12 == pytest.approx(2.95, abs=0.01)


@pytest.mark.parametrize("name", ["residual_autoencoder", "unet_without_pooling"])
def test_cutting_the_skips_changes_the_answer(name: str) -> None:
    whole, cut = (build_model(spec_of(name, width=4, skips=skips)).eval() for skips in (True, False))
    cut.load_state_dict(whole.state_dict())
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert not torch.allclose(whole(images), cut(images))


def test_the_decoder_over_an_encoder_has_the_baseline_s_steps() -> None:
    model = build_model(ModelSpec("baseline_decoder", 3, 21, encoder="resnet34"))
    decoder = sum(p.numel() for name in ("up", "head") for p in model.net.get_submodule(name).parameters())
    baseline = build_model(spec_of("encoder_decoder"))
    assert decoder == sum(p.numel() for name in ("up", "head") for p in baseline.net.get_submodule(name).parameters())
    assert model.encoder is not None


@pytest.mark.parametrize("arguments", [{"width": 0}, {"width": 2.5}, {"activation": "gelu"}])
def test_values_out_of_range_are_named(arguments: dict[str, object]) -> None:
    for name in REPORTED:
        with pytest.raises(RecipeError, match=name):
            build_model(spec_of(name, **arguments))
    assert set(REPORTED) < set(MODELS)
