"""Every row of MODELS at a small declared width, for the testers that all rows go through, and what is excused."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segwright.models import MODELS, ModelSpec, SegmentationModel, build_model

# Leaky, since a ReLU that is shut everywhere would hide what lies before it.
TINY = {"depth": 3, "width": 4, "activation": "leaky_relu"}
NARROW = {"width": 4, "activation": "leaky_relu"}
FIVE = {"decoder_channels": [16, 16, 8, 8, 8]}
UNET = {"name": "unet", "arguments": TINY}
ROWS: dict[str, dict] = {
    "unet": TINY,
    "unet_valid": TINY,
    "unet_separable": TINY,
    "unet_vgg16": {"width": [4, 4, 4, 8, 8], "activation": "leaky_relu"},
    "resunet_attention": TINY,
    "unet3plus": TINY,
    "multihead": TINY,
    "encoder_decoder": NARROW,
    "residual_autoencoder": NARROW,
    "unet_without_pooling": NARROW,
    "baseline_decoder": NARROW,
    "swiftnet": {"width": 16},
    "smp_unet": FIVE,
    "unetplusplus": FIVE,
    "manet": FIVE,
    "linknet": {},
    "fpn": {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32, "decoder_dropout": 0.0},
    "pspnet": {"psp_out_channels": 16, "psp_dropout": 0.0},
    "deeplabv3": {"decoder_channels": 8, "decoder_aspp_dropout": 0.0},
    "deeplabv3plus": {"decoder_channels": 8, "decoder_aspp_dropout": 0.0},
    "pan": {"decoder_channels": 8},
    "upernet": {"decoder_channels": 8},
    "segformer": {"decoder_segmentation_channels": 16},
    "dpt": {"decoder_intermediate_channels": [8, 8, 8, 8], "decoder_fusion_channels": 8},
    "segformer_convolution": {"width": 8, "dropout": 0.0},
    "transunet": {"width": 4, "depth": 3, "embedding": 16, "layers": 2, "heads": 2, "grid": 4, "patch": 2},
    "dual": {
        "first": UNET,
        "second": {"name": "residual_autoencoder", "arguments": NARROW},
        "fusion_width": 4,
    },
    "uformer": {
        "first": UNET,
        "second": {"name": "segformer_convolution", "encoder": "tu-test_resnet", "arguments": {"width": 8}},
    },
    "ensemble": {"members": [UNET, {"name": "multihead", "arguments": TINY}]},
    "refined": {"base": UNET, "width": 4, "depth": 2},
    "cascade": {
        "segmenter": UNET, "labels": [1], "whole": [0, 1], "judge": "test_resnet", "width": 4, "depth": 2,
    },
    "two_step": {"labels": [1], "rare": UNET, "rest": UNET},
    "one_per_class": {"member": UNET},
}  # fmt: skip

WITHOUT_GRADIENT: dict[str, dict[str, str]] = {
    "pspnet": {
        "net.encoder.layer3": "features to stride 8 are read; the library's own encoders keep their coarser stages",
        "net.encoder.layer4": "as layer3",
    },
    "dpt": {
        "net.encoder.model.norm": "the library reads tokens before the last norm",
        "net.encoder.model.head": "of timm's classifier",
    },
}
"""Parameters that no gradient reaches, by the beginning of their names, and why."""

NO_SKIP = "the library gives every block two attentions; where no skip comes in, the first is not asked"
WITHOUT_EFFECT: dict[str, dict[str, str]] = {
    "smp_unet": {"decoder.blocks.4.attention1": NO_SKIP},
    "unetplusplus": {
        "decoder.blocks.x_0_4.attention1": NO_SKIP,
        "decoder.center": "an identity that the library builds for VGG encoders and asks of no other",
    },
    "pan": {f"decoder.gau{k}.conv1.1.activation": "a ReLU that the library builds and does not use" for k in (1, 2, 3)},
    "dpt": {
        "encoder.model.norm": "tokens are read before the last norm",
        "encoder.model.fc_norm": "of timm's classifier",
        "encoder.model.head": "of timm's classifier",
        **{f"decoder.fusion_blocks.{k}.activation": "as pan's" for k in (0, 1, 2, 3)},
    },
}
"""Parts of a network that can be cut without a change of its answer, by the beginning of their names, and why."""

WIDER: dict[str, dict] = {
    "unet": {"width": 8},
    "unet_valid": {"width": 8},
    "unet_separable": {"width": 8},
    "unet_vgg16": {"width": [8, 8, 8, 16, 16]},
    "resunet_attention": {"width": 8, "dropout": 0.0},
    "unet3plus": {"width": 8},
    "multihead": {"width": 8},
    # Where no image is all of one class its judges have nothing to learn, and they see all images at 128 x 128.
    "cascade": {"width": 8, "whole": []},
}
"""What is told otherwise to learn four images by heart in 80 steps: four channels are too few for some."""


ENCODERS = {"dpt": "tu-test_vit", "transunet": None}


def spec_of(name: str, *, channels: int = 3, classes: int = 5, **arguments: object) -> ModelSpec:
    encoder = ENCODERS.get(name, "tu-test_resnet") if MODELS[name].takes_encoder else None
    chosen = {**ROWS[name], **arguments}
    return ModelSpec(name, channels, classes, encoder=encoder, arguments=chosen, mean=(0.4,), std=(0.2,))


def awake(spec: ModelSpec) -> SegmentationModel:
    """A model in which nothing is silent: layers that begin at zero, and shut ReLUs, hide what lies before them."""
    model = build_model(spec)
    for part in model.modules():
        weight = getattr(part, "weight", None)
        if isinstance(weight, nn.Parameter) and not weight.any():
            fill = nn.init.ones_ if weight.ndim == 1 else nn.init.normal_
            fill(weight)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.bias)
    return model


def pictures(n: int = 2, channels: int = 3, height: int = 97, width: int = 131) -> Tensor:
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8)
