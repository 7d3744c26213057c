"""Models of two branches: fused, averaged, made of two trained ones with normalisations of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segwright.bundle import load_bundle, save_bundle
from segwright.errors import RecipeError, WeightsError
from segwright.models import ModelSpec, SegmentationModel, build_model, freeze_encoder, load_encoder_weights, unfreeze
from segwright.models.branches import with_never_predict
from segwright.models.uformer import uformer_of
from segwright.types import ClassSet

UNET = {"name": "unet", "arguments": {"depth": 2, "width": 4}}
BASE = {"name": "encoder_decoder", "arguments": {"width": 4}}


def model_of(name: str, *, first: object = UNET, second: object = BASE, **arguments: object) -> SegmentationModel:
    return build_model(ModelSpec(name, 3, 4, arguments={"first": first, "second": second, **arguments}))


def trained(name: str = "unet", *, classes: int = 4, never_predict: tuple[int, ...] = (), **norm: object) -> object:
    arguments = {"depth": 2, "width": 4} if name == "unet" else {"width": 4}
    return build_model(
        ModelSpec(name, 3, classes, arguments=arguments, never_predict=never_predict, **norm)  # type: ignore[arg-type]
    ).eval()


def pictures(n: int = 2) -> Tensor:
    return torch.randint(0, 256, (n, 3, 37, 50), dtype=torch.uint8)


def test_the_average_of_two_trained_models_is_that_of_their_probabilities() -> None:
    first = trained(mean=(0.2, 0.3, 0.4), std=(0.1, 0.2, 0.3), never_predict=(1,))
    second = trained("encoder_decoder", mean=(0.5,), std=(0.25,))
    joint = uformer_of(first, second, build=build_model).eval()
    images = pictures()
    with torch.inference_mode():
        wanted = (first(images).softmax(1) + second(images).softmax(1)) / 2
        torch.testing.assert_close(joint(images).softmax(1), wanted, rtol=1e-4, atol=1e-5)
        joint.net.weight.copy_(torch.tensor([0.0, 1.0]))
        share = torch.tensor([0.0, 1.0]).softmax(0)
        wanted = share[0] * first(images).softmax(1) + share[1] * second(images).softmax(1)
        torch.testing.assert_close(joint(images).softmax(1), wanted, rtol=1e-4, atol=1e-5)


def test_branches_of_other_full_scales_see_what_they_were_trained_on() -> None:
    first, second = trained(scale=255.0), trained(scale=100.0, mean=(0.1,))
    joint = uformer_of(first, second, build=build_model).eval()
    images = pictures()
    with torch.inference_mode():
        torch.testing.assert_close(joint.net.branches.second(images / 255), second(images), rtol=1e-4, atol=1e-5)


def test_a_bundle_of_two_is_built_again_from_its_own_file(tmp_path: Path) -> None:
    joint = uformer_of(trained(mean=(0.2, 0.3, 0.4)), trained("encoder_decoder"), build=build_model).eval()
    assert ModelSpec.from_dict(json.loads(json.dumps(joint.spec.as_dict()))) == joint.spec
    classes = ClassSet(names=tuple("abcd"), colors=((0, 0, 0), (9, 9, 9), (99, 9, 9), (9, 99, 9)))
    save_bundle(tmp_path / "b", joint, classes=classes, info={})
    again, images = load_bundle(tmp_path / "b").model, pictures()
    assert again.spec == joint.spec
    with torch.inference_mode():
        assert torch.equal(again(images), joint(images))


def test_models_of_other_classes_are_not_averaged() -> None:
    with pytest.raises(RecipeError, match="4 classes beside one of 3 and 5"):
        uformer_of(trained(), trained(classes=5), build=build_model)


def test_the_average_and_its_weights_learn() -> None:
    joint = uformer_of(trained(), trained("encoder_decoder"), build=build_model).train()
    answer, *branches = joint(pictures())
    assert len(branches) == 2
    torch.nn.functional.cross_entropy(answer, torch.randint(0, 4, (2, 37, 50))).backward()
    assert all(parameter.grad is not None for parameter in joint.parameters())
    assert joint.net.weight.grad.abs().max() > 0


def test_a_dual_model_answers_with_three_heads_and_begins_near_their_mean() -> None:
    model = model_of("dual", fusion_width=4)
    assert len(model.train()(pictures())) == 3
    model.eval()
    model.net.training = True
    fused, first, second = model(pictures())
    assert 0 < (fused - (first + second) / 2).abs().max() < 0.05
    assert isinstance(model.eval()(pictures()), Tensor)


def test_a_branch_that_never_predicts_a_class_leaves_the_fusion_finite() -> None:
    model = model_of("dual", first={**UNET, "never_predict": [0]}, fusion_width=4).train()
    heads = model(pictures())
    assert all(head.isfinite().all() for head in heads)
    torch.stack(heads).clamp(-50, 50).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_both_branches_are_frozen_together_and_learn_again() -> None:
    model = model_of("dual").train()
    stopped = freeze_encoder(model)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning
    assert all(name.startswith("net.fusion") for name in learning)
    assert not model.net.branches.first.training
    unfreeze(model, stopped)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(part.training for part in model.modules())
    with pytest.raises(RecipeError, match="no feature of depth 2"):
        freeze_encoder(model, depth=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first": "unte"}, "Did you mean 'unet'"),
        ({"first": 3}, "first 3 is no model"),
        ({"second": {"encoder": "resnet18"}}, "is no model"),
        ({"second": {**UNET, "argument": {}}}, "Did you mean 'arguments'"),
        ({"second": {**UNET, "mean": "high"}}, "mean"),
        ({"second": {**UNET, "arguments": 7}}, "another kind"),
        ({"fusion_width": 0}, "fusion_width 0"),
    ],
)
def test_what_is_no_branch_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        model_of("dual", **arguments)
    assert message in str(caught.value)


def test_weights_for_branches_without_an_encoder_are_refused() -> None:
    with pytest.raises(WeightsError, match="no branch has an encoder"):
        load_encoder_weights(model_of("dual"), "imagenet")


def test_only_trained_models_of_the_same_classes_are_told_anew_what_they_must_not_answer() -> None:
    trained = {"name": "unet", "never_predict": [7]}
    inner = {"name": "dual", "arguments": {"first": trained, "second": "unet", "fusion_width": 4}}
    arguments = {"members": [trained, inner, {"name": "fpn"}], "rare": trained, "weights": [1, 1, 1]}
    told = with_never_predict(arguments, (0,))
    anew = {"name": "unet", "never_predict": [0]}
    assert told["members"] == [
        anew,
        {"name": "dual", "arguments": {"first": anew, "second": "unet", "fusion_width": 4}},
        {"name": "fpn"},
    ]
    assert (told["rare"], told["weights"]) == (trained, [1, 1, 1])
    assert arguments["members"][0] == {"name": "unet", "never_predict": [7]}
