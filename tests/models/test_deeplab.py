"""DeepLabV3+: the library's, and its fine feature from another stage."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch

from segwright.errors import RecipeError
from segwright.models import MODELS, ModelSpec, SegmentationModel, build_model

IMAGES = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def deeplab(**arguments: object) -> SegmentationModel:
    given = {"decoder_channels": 8, "decoder_aspp_dropout": 0.0, **arguments}
    spec = ModelSpec("deeplabv3plus", 3, 4, encoder="resnet18", arguments=given)
    return build_model(spec).eval()


@torch.inference_mode()
def test_at_a_quarter_it_is_the_librarys() -> None:
    model = deeplab()
    theirs = smp.DeepLabV3Plus("resnet18", encoder_weights=None, decoder_channels=8, classes=4).eval()
    theirs.load_state_dict(model.net.state_dict())
    x = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(model.net(x), theirs(x), rtol=0, atol=0)


@torch.inference_mode()
@pytest.mark.parametrize(("stride", "channels"), [(4, 64), (8, 128), (16, 256)])
def test_the_fine_feature_is_that_of_the_stage(stride: int, channels: int) -> None:
    model = deeplab(low_level_stride=stride)
    seen: list[torch.Tensor] = []
    model.net.decoder.block1.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    before = model(IMAGES)
    assert seen[0].shape == (2, channels, 64 // stride, 96 // stride)
    torch.nn.init.zeros_(model.net.decoder.block1[0].weight)
    assert before.shape == (2, 4, 64, 96)
    assert not torch.allclose(before, model(IMAGES))


@pytest.mark.parametrize(
    ("arguments", "least"),
    [({"low_level_stride": 32}, 16), ({"low_level_stride": 5}, 16),
     ({"low_level_stride": 16, "encoder_output_stride": 8}, 8), ({"low_level_stride": 16, "encoder_depth": 3}, 8)],
)  # fmt: skip
def test_a_stage_that_is_not_there_is_refused(arguments: dict[str, object], least: int) -> None:
    with pytest.raises(RecipeError, match=rf"low_level_stride is one of \(4, 8, 16\), and here at most {least}"):
        deeplab(**arguments)


def test_a_shallow_encoder_gives_a_feature_as_coarse_as_its_last() -> None:
    assert deeplab(low_level_stride=8, encoder_depth=3)(IMAGES).shape == (2, 4, 64, 96)


def test_the_argument_is_listed_with_the_librarys() -> None:
    assert MODELS["deeplabv3plus"].arguments["low_level_stride"] == 4
    assert MODELS["deeplabv3plus"].arguments["decoder_channels"] == 256
