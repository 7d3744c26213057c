"""Every row of MODELS: what its heads answer, at odd sizes and of one image; exports, encoders, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

from segwright.errors import RecipeError
from segwright.models import MODELS, ModelSpec, SegmentationModel, build_model, freeze_encoder
from segwright.models.library import LIBRARY, encoders_of
from segwright.types import Head

sys.path.append(str(Path(__file__).parent.parent))
from every_model import pictures, spec_of

sys.path.pop()


def heads_of(answer: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def shapes_of(model: SegmentationModel, count: int, *, images: int, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """What each head must answer: of the classes, unless it says what else."""
    said = model.heads or (Head("any"),) * count
    return [(images, head.num_classes or 5, *((1, 1) if head.whole is not None else size)) for head in said]


@pytest.mark.parametrize("name", MODELS)
def test_every_head_answers_at_an_odd_size(name: str) -> None:
    model = build_model(spec_of(name)).train()
    masks = torch.randint(0, 5, (2, 65, 131))
    heads = heads_of(model(pictures(2, height=65, width=131), masks))
    assert [tuple(logits.shape) for logits in heads] == shapes_of(model, len(heads), images=2, size=(65, 131))
    assert all(logits.isfinite().all() for logits in heads)
    model.eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(pictures(1, height=33, width=40)).isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_one_image_alone_trains(name: str) -> None:
    model = build_model(spec_of(name)).train()
    heads = heads_of(model(pictures(1, height=20, width=20)))
    assert [tuple(logits.shape) for logits in heads] == shapes_of(model, len(heads), images=1, size=(20, 20))
    assert all(logits.isfinite().all() for logits in heads)


@pytest.mark.parametrize("name", ["unet", "fpn"])
@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("classes", [1, 2, 25])
def test_channels_classes_and_a_way_through_json(name: str, channels: int, classes: int) -> None:
    spec = spec_of(name, channels=channels, classes=classes)
    model = build_model(spec).eval()
    image = pictures(1, channels)
    with torch.inference_mode():
        logits = model(image)
    assert logits.shape == (1, classes, 97, 131)
    again = build_model(ModelSpec.from_dict(json.loads(json.dumps(model.spec.as_dict())))).eval()
    assert again.spec == model.spec
    again.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert torch.equal(again(image), logits)


@pytest.mark.parametrize("name", ["unet", "fpn"])
def test_a_size_that_fits_goes_through_as_it_is(name: str) -> None:
    model = build_model(spec_of(name)).eval()
    image = pictures(1, height=96, width=128)
    with torch.inference_mode():
        whole = model(image)
        direct = model.net((image / 255 - 0.4) / 0.2)
    torch.testing.assert_close(whole, direct, rtol=1e-4, atol=1e-4)


def test_named_encoder_is_dropped_where_there_is_none() -> None:
    model = build_model(dataclasses.replace(spec_of("unet"), encoder="resnet18"))
    assert model.encoder is None
    assert model.spec.encoder is None


def test_a_frozen_encoder_stands_still_and_the_rest_learns() -> None:
    model = build_model(spec_of("fpn"))
    freeze_encoder(model)
    model = copy.deepcopy(model).train()
    assert model.encoder is model.net.get_submodule("encoder")
    before = copy.deepcopy(model.encoder.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(pictures(2, height=64, width=64)).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in model.encoder.state_dict().items())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    assert model.net.get_submodule("decoder").training
    with pytest.raises(RecipeError, match="no encoder to freeze"):
        freeze_encoder(build_model(spec_of("unet")))


@pytest.mark.parametrize("name", ["unet", "fpn"])
def test_export_keeps_the_logits(name: str) -> None:
    model = build_model(dataclasses.replace(spec_of(name), never_predict=(0,))).eval()
    image = pictures(1, height=40, width=50)
    program = torch.export.export(model, (image,))
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(image), model(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2", "mit_b0", "timm-efficientnet-b0", "tu-resnet10t"])
def test_encoders_of_all_families(encoder: str) -> None:
    model = build_model(ModelSpec("fpn", 4, 2, encoder=encoder)).eval()
    assert isinstance(model, SegmentationModel)
    with torch.inference_mode():
        assert model(pictures(1, 4, 45, 70)).shape == (1, 2, 45, 70)


def test_strided_pointwise_convolutions_have_true_gradients() -> None:
    """Channels-last order breaks them in oneDNN; double precision in the other order gives the reference."""
    model = build_model(ModelSpec("fpn", 3, 2, encoder="mobileone_s0")).eval()
    assert model.net.get_submodule("encoder.stage0.rbr_scale.conv").stride == (1, 1)
    x = model._normalized(pictures(2, height=64, width=96))
    gradients = []
    for net, given in ((model.net, x), (copy.deepcopy(model.net).double(), x.double().contiguous())):
        net(given).square().mean().backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    for name, true in gradients[1].items():
        assert (gradients[0][name] - true).norm() <= 1e-3 * true.norm() + 1e-6, name


def test_an_encoder_of_one_size_takes_others() -> None:
    arguments = {"decoder_channels": [16, 16, 8, 8, 8]}
    free = build_model(ModelSpec("smp_unet", 3, 2, encoder="tu-swin_tiny_patch4_window7_224", arguments=arguments))
    assert free.stride == 32
    with torch.inference_mode():
        assert free.eval()(pictures(1, height=45, width=70)).shape == (1, 2, 45, 70)
    bound = build_model(ModelSpec("smp_unet", 3, 2, encoder="tu-maxvit_tiny_tf_224", arguments=arguments))
    assert bound.stride == 224


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "unte"}, "Did you mean 'unet'"),
        ({"encoder": None}, "needs an encoder"),
        ({"encoder": "resnet81"}, "Did you mean 'resnet18'"),
        ({"encoder": "convnext_tiny"}, "Did you mean 'tu-convnext_tiny'"),
        ({"encoder": "tu-convnext_tini"}, "Did you mean 'tu-convnext_tiny'"),
        ({"arguments": {"decoder_dropuot": 0.1}}, "Did you mean 'decoder_dropout'"),
        ({"arguments": {"encoder_weights": "imagenet"}}, "no argument 'encoder_weights'"),
        ({"arguments": {"decoder_merge_policy": "mul"}}, "does not take decoder_merge_policy=mul"),
        ({"name": "deeplabv3plus", "encoder": "vgg11", "arguments": {}}, "These work: resnet18, resnet34"),
        ({"name": "linknet", "encoder": "mit_b0", "arguments": {}}, "These work: resnet18, resnet34"),
        ({"name": "dpt", "encoder": "resnet18", "arguments": {}}, "These work: tu-vit_tiny_patch16_224"),
        ({"name": "dpt", "encoder": "tu-vit_small_patch14_dinov2", "arguments": {}}, "does not work with encoder"),
        ({"name": "pan", "encoder": "tu-densenet121", "arguments": {}}, "output_stride"),
    ],
)
def test_what_is_refused_and_what_is_answered(changes: dict, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_model(dataclasses.replace(spec_of("fpn"), **changes))
    assert message in str(caught.value)


def test_arguments_that_change_the_size_of_the_answer_are_named() -> None:
    model = build_model(spec_of("fpn", upsampling=2))
    with pytest.raises(RecipeError, match="'upsampling'"):
        model(pictures(2))


@pytest.mark.parametrize("name", LIBRARY)
def test_the_encoders_said_to_work_do(name: str) -> None:
    """Of each architecture, the ones at the edge of the rule."""
    edge = {"vgg11", "densenet121", "xception", "inceptionv4", "mit_b0"}
    said = set(encoders_of(name)) & edge
    for encoder in sorted(edge):
        spec = ModelSpec(name, 3, 2, encoder=encoder)
        if encoder in said:
            with torch.device("meta" if encoder != "mit_b0" else "cpu"):
                build_model(spec)
        else:
            with pytest.raises(RecipeError, match="does not work with encoder"):
                build_model(spec)
