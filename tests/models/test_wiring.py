"""One tester for the networks that are ours: every part has a say in the answer, and other images have none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segwright.bundle import load_bundle, save_bundle
from segwright.losses import build_loss
from segwright.losses.heads import HeadsLoss
from segwright.metrics import confusion_per_image
from segwright.models import ModelSpec, SegmentationModel, build_model
from segwright.types import ClassSet

TINY = {"depth": 3, "width": 4, "activation": "leaky_relu"}
PRESETS: dict[str, dict] = {
    "unet": TINY,
    "unet_valid": TINY,
    "unet_separable": TINY,
    "unet_vgg16": {"width": [4, 4, 4, 8, 8], "activation": "leaky_relu"},
    "resunet_attention": TINY,
    "unet3plus": TINY,
    "multihead": TINY,
}
OTHERS: dict[str, dict] = {
    "segformer_convolution": {"width": 8},
    "transunet": {"width": 4, "depth": 3, "embedding": 16, "layers": 2, "heads": 2, "grid": 4, "patch": 2},
    "dual": {
        "first": {"name": "unet", "arguments": TINY},
        "second": {"name": "residual_autoencoder", "arguments": {"width": 4, "activation": "leaky_relu"}},
        "fusion_width": 4,
    },
    "uformer": {
        "first": {"name": "unet", "arguments": TINY},
        "second": {"name": "multihead", "arguments": TINY},
    },
    "two_step": {
        "labels": [1],
        "rare": {"name": "unet", "arguments": TINY},
        "rest": {"name": "unet", "arguments": TINY},
    },
    "one_per_class": {"member": {"name": "unet", "arguments": TINY}},
    "ensemble": {"members": [{"name": "unet", "arguments": TINY}] * 2},
}
ENCODERS = {"segformer_convolution": "tu-test_resnet"}
SWITCHES: list[dict] = [
    {"convolution": "separable_decoder", "extra_levels": 1},
    {"convolution": "residual", "padding": "valid", "stochastic_depth": 0.2},
    {"skips": "add", "padding": "valid"},
    {"skips": "residual", "up": "bilinear"},
    {"skips": "se", "norm": "group"},
    {"skips": "attention", "padding": "valid"},
    {"skips": "none", "norm": "instance"},
    {"bottleneck": "se_dilated", "width": [6, 5, 8]},
    {"bottleneck": "aspp", "activation": "silu"},
    {"bottleneck": "aspp", "norm": "instance"},
    {"bottleneck": "ppm", "convolutions": [1, 3, 2]},
    {"bottleneck": "ppm", "padding": "valid", "convolutions": [1, 3, 2]},
]
ROWS = [*PRESETS.items(), *OTHERS.items(), *(("unet", TINY | switches) for switches in SWITCHES)]


def name_of(row: object) -> str:
    return row if isinstance(row, str) else "-".join(f"{value}" for key, value in row.items() if TINY.get(key) != value)


def tiny(name: str, arguments: dict, *, channels: int = 3, classes: int = 5) -> SegmentationModel:
    encoder = ENCODERS.get(name)
    model = build_model(ModelSpec(name, channels, classes, encoder, arguments, mean=(0.4,), std=(0.2,)))
    for part in model.modules():
        if encoder is not None and isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)  # timm lets residual paths start at nothing
    return model


def pictures(n: int = 2, channels: int = 3, height: int = 33, width: int = 39) -> Tensor:
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8)


def all_heads(model: SegmentationModel, images: Tensor) -> tuple[Tensor, ...]:
    """What every head says, nothing dropped and no statistics moved."""
    model.eval()
    model.net.training = True
    answer = model(images)
    model.eval()
    return answer if isinstance(answer, tuple) else (answer,)


def same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def loss_of(model: SegmentationModel, formula: str, *, classes: int) -> nn.Module:
    """The loss that a training gives a model of these heads."""
    if not model.heads:
        return build_loss(formula, num_classes=classes)
    losses = [build_loss(formula, num_classes=head.num_classes or classes) for head in model.heads]
    return HeadsLoss(model.heads, losses)


def zeroed(result: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Tensor | list[Tensor] | tuple[Tensor, ...]:
    return torch.zeros_like(result) if isinstance(result, Tensor) else type(result)(map(zeroed, result))


def without_effect(model: SegmentationModel, images: Tensor) -> list[str]:
    """Parts whose output can be zeroed without a change in the answer of any head."""
    with torch.inference_mode():
        whole = all_heads(model, images)
        idle = []
        for name, part in model.net.named_modules():
            if not name or isinstance(part, nn.ModuleList):
                continue
            cut = part.register_forward_hook(lambda module, given, result: zeroed(result))
            changed = not same(all_heads(model, images), whole)
            cut.remove()
            idle += [] if changed else [name]
    return idle


@pytest.mark.parametrize(("name", "arguments"), ROWS, ids=name_of)
def test_cutting_any_part_changes_the_answer(name: str, arguments: dict) -> None:
    assert not without_effect(tiny(name, arguments), pictures(1))


def test_a_part_that_does_nothing_is_found() -> None:
    model = tiny("unet", TINY)
    model.net.add_module("left_over", nn.Identity())
    assert without_effect(model, pictures(1)) == ["left_over"]


@pytest.mark.parametrize(("name", "arguments"), ROWS, ids=name_of)
def test_every_parameter_learns_in_either_precision(name: str, arguments: dict) -> None:
    model = tiny(name, arguments).train()
    loss = loss_of(model, "ce + dice", classes=5)
    masks = torch.randint(0, 5, (2, 33, 39))
    for narrow in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            value = loss(model(pictures()), masks)
        value.backward()
        assert value.isfinite()
        silent = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not silent
    moved = sum(bool(p.grad.abs().max() > 0) for p in model.parameters())
    assert moved > 0.8 * len(list(model.parameters()))


@pytest.mark.parametrize(("channels", "classes"), [(1, 25), (3, 1), (7, 2)])
@pytest.mark.parametrize("name", [*PRESETS, *OTHERS])
def test_any_channels_classes_and_size(name: str, channels: int, classes: int) -> None:
    classes = max(2, classes) if name == "two_step" else classes
    model = tiny(name, (PRESETS | OTHERS)[name], channels=channels, classes=classes).eval()
    images = pictures(1, channels, 97, 131)
    with torch.inference_mode():
        logits = model(images)
    assert logits.shape == (1, classes, 97, 131)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("name", "arguments"), ROWS, ids=name_of)
def test_an_image_is_answered_alike_alone_and_among_others(name: str, arguments: dict) -> None:
    model = tiny(name, arguments).eval()
    images = pictures(8)
    with torch.inference_mode():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    # Sums of other batch sizes are taken in another order.
    assert (together - alone).abs().max() <= 1e-4 * alone.abs().max()


@pytest.mark.parametrize("name", [*PRESETS, *OTHERS])
def test_a_bundle_answers_as_the_model_did(name: str, tmp_path: Path) -> None:
    model = tiny(name, (PRESETS | OTHERS)[name], classes=2)
    model.train()(pictures())
    model.eval()
    images = pictures(1)
    classes = ClassSet(names=("a", "b"), colors=((0, 0, 0), (255, 255, 255)))
    save_bundle(tmp_path / "b", model, classes=classes, info={})
    with torch.inference_mode():
        assert torch.equal(load_bundle(tmp_path / "b").model(images), model(images))


@pytest.mark.parametrize("name", [*PRESETS, *OTHERS])
def test_four_images_are_learnt_by_heart(name: str) -> None:
    """To over 0.95 mIoU, with a tiny network, by its main head and with all heads in the loss."""
    arguments = (PRESETS | OTHERS)[name] | ({"dropout": 0.0} if name == "resunet_attention" else {})
    if name not in OTHERS:
        arguments |= {"width": 8} if "depth" in arguments else {"width": [8, 8, 8, 16, 16]}
    model = tiny(name, arguments, channels=1, classes=3)
    images, masks = blots()
    loss = loss_of(model, "ce + jaccard", classes=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    reached = 0.0
    for step in range(1, 81):
        optimizer.zero_grad()
        loss(model.train()(images), masks).backward()
        optimizer.step()
        if step % 10 == 0 and (reached := miou(model, images, masks)) > 0.95:
            break
    assert reached > 0.95


def miou(model: SegmentationModel, images: Tensor, masks: Tensor) -> float:
    with torch.inference_mode():
        pred = model.eval()(images).argmax(1)
    counts = confusion_per_image(pred, masks, num_classes=3).sum(0).double()
    return float((counts.diag() / (counts.sum(0) + counts.sum(1) - counts.diag())).mean())


def blots() -> tuple[Tensor, Tensor]:
    """Four images of bright and dark rectangles on gray, with noise, and their masks."""
    masks = torch.zeros(4, 32, 32, dtype=torch.int64)
    for k in range(4):
        masks[k, 3 + k : 15 + 2 * k, 4 : 14 + k] = 1
        masks[k, 18 - k : 29, 17 : 27 + k] = 2
    levels = torch.tensor([120, 200, 40])
    noise = torch.randint(-20, 21, masks.shape)
    return (levels[masks] + noise).to(torch.uint8)[:, None], masks
