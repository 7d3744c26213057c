"""U-Net 3+: the paper's channels, what each level sees, and its heads."""

from __future__ import annotations

import pytest
import torch

from segwright.errors import RecipeError
from segwright.models import ModelSpec, build_model


def small(**arguments: object) -> ModelSpec:
    return ModelSpec("unet3plus", 3, 4, arguments={"depth": 3, "width": 4, **arguments}, scale=1.0)


def test_the_channels_are_the_paper_s() -> None:
    """Five scales of 64 channels a level, and 27.0 million parameters for one channel and one class."""
    with torch.device("meta"):
        net = build_model(ModelSpec("unet3plus", 1, 1, arguments={"width": 64})).net
    blends = [block[0] for block in net.get_submodule("blends")]
    assert [(layer.in_channels, layer.out_channels) for layer in blends] == [(320, 320)] * 4
    into = [[block[0].in_channels for block in level] for level in net.get_submodule("scales")]
    assert into == [
        [64, 320, 320, 320, 1024],
        [64, 128, 320, 320, 1024],
        [64, 128, 256, 320, 1024],
        [64, 128, 256, 512, 1024],
    ]
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(27.0e6, rel=0.01)


def test_every_level_has_a_head_that_answers_in_training_alone() -> None:
    model = build_model(small()).train()
    images = torch.rand(2, 3, 21, 30)
    heads = model(images)
    assert isinstance(heads, tuple)
    assert [head.shape for head in heads] == [(2, 4, 21, 30)] * 3
    assert model.eval()(images).shape == (2, 4, 21, 30)
    assert build_model(small(deep_supervision=False)).train()(images).shape == (2, 4, 21, 30)


def test_the_main_head_is_the_finest() -> None:
    model = build_model(small(norm="none")).train()
    images = torch.rand(1, 3, 16, 24)
    main = model(images)[0]
    torch.testing.assert_close(main, model.eval()(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 1}, "depth 1.*2 to 8"),
        ({"width": 0}, "width 0"),
        ({"norm": "layer"}, "norm 'layer'"),
        ({"dropout": -0.1}, "dropout -0.1"),
        ({"deep_supervision": 1}, "Use true or false"),
    ],
)
def test_values_that_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_model(small(**arguments))
