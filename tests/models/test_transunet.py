"""TransUNet and the convolution decoder of SegFormer: sizes, encoders, position, and what is refused."""

from __future__ import annotations

import pytest
import torch

from segwright.errors import RecipeError
from segwright.models import ModelSpec, SegmentationModel, build_model
from segwright.models.transunet import PatchTransformer, TransformerLayer

TINY = {"width": 4, "embedding": 16, "layers": 1, "heads": 2, "grid": 4}


def model_of(*, encoder: str | None = None, **arguments: object) -> SegmentationModel:
    return build_model(ModelSpec("transunet", 3, 2, encoder=encoder, arguments={**TINY, **arguments}))


@pytest.mark.parametrize(("depth", "patch"), [(2, 1), (3, 2), (4, 1), (5, 1)])
def test_any_depth_and_patch(depth: int, patch: int) -> None:
    model = model_of(depth=depth, patch=patch).eval()
    assert model.stride == 2**depth * patch
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 61, 90, dtype=torch.uint8)).shape == (1, 2, 61, 90)


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2", "mit_b0"])
def test_stages_that_nothing_reads_are_left_out(encoder: str) -> None:
    model = model_of(encoder=encoder).train()
    model(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)).square().mean().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert model.encoder is not None


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    layer = TransformerLayer(16, heads=4, dropout=0.0).eval()
    reference = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    reference.load_state_dict(
        {
            "in_proj_weight": layer.queries_keys_values.weight,
            "in_proj_bias": layer.queries_keys_values.bias,
            "out_proj.weight": layer.joined.weight,
            "out_proj.bias": layer.joined.bias,
        }
    )
    tokens = torch.randn(2, 7, 16)
    normed = layer.before_attention(tokens)
    middle = tokens + reference(normed, normed, normed)[0]
    torch.testing.assert_close(layer(tokens), middle + layer.mlp(layer.before_mlp(middle)))


def test_position_tells_equal_patches_apart() -> None:
    transformer = PatchTransformer(3, embedding=8, layers=1, heads=2, patch=1, grid=4, dropout=0.0).eval()
    same = torch.ones(1, 3, 6, 5)
    with torch.no_grad():
        assert transformer(same).flatten(2).std(dim=2).max() > 0
        transformer.pos_embed.zero_()
        assert transformer(same).flatten(2).std(dim=2).max() < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 3}, "embedding 16 for 3 heads"),
        ({"depth": 6}, "depth 6"),
        ({"layers": 0}, "layers 0"),
        ({"dropout": 1}, "dropout 1"),
        ({"width": True}, "width True"),
    ],
)
def test_arguments_that_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        model_of(**arguments)


def test_the_convolution_decoder_skips_levels_that_an_encoder_lacks() -> None:
    model = build_model(ModelSpec("segformer_convolution", 3, 2, encoder="mit_b0", arguments={"width": 8})).eval()
    assert model.net.levels == (2, 3, 4, 5)
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 45, 70, dtype=torch.uint8)).shape == (1, 2, 45, 70)
    for arguments, message in (({"width": 0}, "width 0"), ({"dropout": 1.0}, "dropout 1.0")):
        with pytest.raises(RecipeError, match=message):
            build_model(ModelSpec("segformer_convolution", 3, 2, encoder="mit_b0", arguments=arguments))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_is_built_over_an_encoder_where_gradients_are_off(mode: type) -> None:
    arguments = {"width": 4, "depth": 3, "embedding": 16, "layers": 2, "heads": 2, "grid": 4, "patch": 2}
    with mode():
        model = build_model(ModelSpec("transunet", 3, 2, encoder="tu-test_resnet", arguments=arguments))
    model.train()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())
