"""TransUNet: convolutions, transformer layers on patches of their coarsest features, and a U-Net's way up.

Chen et al. 2021, https://arxiv.org/abs/2102.04306; the layers are those of a vision transformer (Dosovitskiy et al.
2020, https://arxiv.org/abs/2010.11929) with the norm before each part. As in the paper, the way up joins the features
of every halving, and none at full size. The paper's own size is a ResNet-50 with `depth: 4`, `embedding: 768`,
`layers: 12`, `heads: 12`; the defaults are small, for images of about 64 x 128 pixels.

The position embedding is learnt on a grid and interpolated to that of the image, so that any size goes through.

Symbols: N images, C channels, K classes, H W rows and columns, L tokens, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import RecipeError
from segwright.models.blocks import ConvolutionBlock, initialize
from segwright.models.freezing import parameters_below
from segwright.models.library import build_encoder
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel

_EXPANSION = 4
_POSITION_STD = 0.02
_MOST_LEVELS = 5


@final
class TransformerLayer(nn.Module):
    """Attention among tokens, then two linear layers on each: (N, L, D) -> (N, L, D).

    Args:
        embedding: D.
        heads: of the attention; they share D.
        dropout: after each of the two parts.
    """

    def __init__(self, embedding: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(embedding)
        self.queries_keys_values = nn.Linear(embedding, 3 * embedding)
        self.joined = nn.Linear(embedding, embedding)
        self.before_mlp = nn.LayerNorm(embedding)
        self.mlp = nn.Sequential(
            nn.Linear(embedding, _EXPANSION * embedding),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(_EXPANSION * embedding, embedding),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        n, length, width = tokens.shape
        parts = self.queries_keys_values(self.before_attention(tokens)).view(n, length, 3, self.heads, -1)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        seen = F.scaled_dot_product_attention(queries, keys, values)
        tokens = tokens + self.dropout(self.joined(seen.transpose(1, 2).reshape(n, length, width)))
        rest: Tensor = self.dropout(self.mlp(self.before_mlp(tokens)))
        return tokens + rest


@final
class PatchTransformer(nn.Module):
    """Transformer layers on the patches of a feature map: (N, C, H, W) -> (N, D, H / patch, W / patch).

    Args:
        channels: C.
        embedding: D.
        layers: one after another.
        heads: of each.
        patch: side of a patch, in pixels of the feature map.
        grid: side of the grid on which positions are learnt.
        dropout: of the embedded patches and within the layers.
    """

    def __init__(
        self, channels: int, *, embedding: int, layers: int, heads: int, patch: int, grid: int, dropout: float
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, embedding, patch, stride=patch)
        self.pos_embed = nn.Parameter(torch.empty(1, embedding, grid, grid))
        nn.init.trunc_normal_(self.pos_embed, std=_POSITION_STD)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(*(TransformerLayer(embedding, heads=heads, dropout=dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(embedding)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, width, rows, columns = x.shape
        x = x + F.interpolate(self.pos_embed, size=(rows, columns), mode="bicubic")
        tokens: Tensor = self.norm(self.layers(self.dropout(x.flatten(2).transpose(1, 2))))
        return tokens.transpose(1, 2).reshape(n, width, rows, columns)


@final
class ResidualStep(nn.Module):
    """Half the size: two 3x3 convolutions around a shortcut (He et al. 2015, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.path(x) + self.shortcut(x))


@final
class ResidualSteps(nn.Module):
    """Convolutions of our own: (N, C, H, W) -> the input, then features at 1/2, 1/4, ... of its size.

    Args:
        in_channels: C.
        widths: channels of each feature.
    """

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(ResidualStep(a, b) for a, b in pairwise([in_channels, *widths]))
        initialize(self, activation="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [x]
        for step in self.steps:
            features.append(step(features[-1]))
        return features


@final
class TransUNet(nn.Module):
    """Encoder, transformer, way up: (N, C, H, W) -> (N, K, H, W), H and W multiples of 2**depth * patch.

    Args:
        encoder: gives features from fine to coarse, the input itself first.
        transformer: on the coarsest of them.
        channels: of the features.
        embedding: D.
        num_classes: K.
        width: channels of the last step up; doubled at each coarser one.
    """

    def __init__(
        self, encoder: nn.Module, transformer: PatchTransformer, *, channels: Sequence[int], embedding: int,
        num_classes: int, width: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = encoder
        self.transformer = transformer
        skips = [*reversed(channels[1:-1]), 0]
        widths = [width * 2**level for level in reversed(range(len(skips)))]
        self.project = ConvolutionBlock(embedding, 2 * widths[0], norm="batch", activation="relu")
        self.up = nn.ModuleList(
            ConvolutionBlock(before + skip, after, norm="batch", activation="relu")
            for before, skip, after in zip([2 * widths[0], *widths], skips, widths, strict=False)
        )
        self.head = nn.Conv2d(width, num_classes, 1)
        for part in (self.project, self.up, self.head):
            initialize(part, activation="relu")

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        y = self.project(self.transformer(features[-1]))
        skips: list[Tensor | None] = [*reversed(features[1:-1]), None]
        for up, skip in zip(self.up, skips, strict=True):
            size = x.shape[-2:] if skip is None else skip.shape[-2:]
            y = F.interpolate(y, size=size, mode="bilinear")
            y = up(y if skip is None else torch.cat([y, skip], dim=1))
        logits: Tensor = self.head(y)
        return logits


ARGUMENTS: dict[str, Any] = {
    "width": 16, "depth": 4, "embedding": 192, "layers": 4, "heads": 4, "patch": 1, "grid": 8, "dropout": 0.1,
}  # fmt: skip


def _build(spec: ModelSpec) -> SegmentationModel:
    """With an encoder of the library, or with convolutions of our own where none is named."""
    chosen = ARGUMENTS | spec.arguments
    _check(chosen)
    depth, width, embedding = chosen["depth"], chosen["width"], chosen["embedding"]
    if spec.encoder is None:
        channels = [spec.in_channels, *(width * 2**level for level in range(1, depth + 1))]
        encoder: nn.Module = ResidualSteps(spec.in_channels, channels[1:])
    else:
        encoder = build_encoder(spec, depth=depth)
        channels = list(encoder.out_channels)[: depth + 1]  # type: ignore[arg-type]  # a list of the library's
        _drop_idle_stages(encoder, depth, channels=spec.in_channels)
    parts = {name: chosen[name] for name in ("embedding", "layers", "heads", "patch", "grid", "dropout")}
    net = TransUNet(
        encoder,
        PatchTransformer(channels[-1], **parts),
        channels=channels,
        embedding=embedding,
        num_classes=spec.num_classes,
        width=width,
    )
    stride = 2**depth * chosen["patch"]
    loadable = None if spec.encoder is None else encoder
    size = InputSize(stride, minimum=2 * stride)
    return SegmentationModel(spec, net, encoder=loadable, input_size=size)


def _drop_idle_stages(encoder: nn.Module, depth: int, *, channels: int) -> None:
    """Take out the stages that are coarser than the features: they would be carried along and learn nothing."""
    used = {id(parameter) for parameter in parameters_below(encoder, depth, channels=channels)}
    _drop(encoder, used)


def _drop(part: nn.Module, used: set[int]) -> None:
    for name, stage in list(part.named_children()):
        own = {id(parameter) for parameter in stage.parameters()}
        if own and not own & used:
            setattr(part, name, nn.Identity())
        elif not own <= used:
            _drop(stage, used)


def _check(chosen: dict[str, Any]) -> None:
    for name in ("width", "depth", "embedding", "layers", "heads", "patch", "grid"):
        value = chosen[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RecipeError(f"transunet: {name} {value}", mend="use a whole number of at least 1")
    if not 2 <= chosen["depth"] <= _MOST_LEVELS:
        raise RecipeError(f"transunet: depth {chosen['depth']}", mend=f"use 2 to {_MOST_LEVELS} halvings")
    if chosen["embedding"] % chosen["heads"]:
        problem = f"transunet: embedding {chosen['embedding']} for {chosen['heads']} heads"
        raise RecipeError(problem, mend="use an embedding that is a multiple of the heads")
    dropout = chosen["dropout"]
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise RecipeError(f"transunet: dropout {dropout}", mend="use a number from 0 to below 1")


TRANSUNET = ModelEntry(
    build=_build,
    paper="https://arxiv.org/abs/2102.04306",
    line="convolutions, transformer layers on their coarsest features, a U-Net's way up; encoder or none",
    arguments=ARGUMENTS,
    takes_encoder=True,
)
