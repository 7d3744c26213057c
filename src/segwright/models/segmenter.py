"""The model as every other room sees it: raw images of any size in, logits of that size out.

Around the network (`net`) stand the steps that belong to a trained model and not to its user: normalisation
(image / scale - mean) / std in float32, padding by reflection up to a size that the network takes, cropping back, and
classes that are never predicted. So training, prediction and export cannot differ in them.

A network with several heads (deep supervision, Lee et al. 2015, https://arxiv.org/abs/1409.5185) answers with all of
them while it trains, the main one first, and with the main one alone otherwise.

Padding goes to the right and to the bottom, so pixel (0, 0) stays where it is. Networks without padding in their
convolutions (Ronneberger 2015, https://arxiv.org/abs/1505.04597) get their margin by reflection on all four sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from segwright.errors import RecipeError
from segwright.models.blocks import stride_pointwise_by_slicing
from segwright.tensors import Images, Logits, Masks
from segwright.types import IGNORE_INDEX, Head

NEVER = -1e4
"""What is added to the logits of classes that are never predicted: no probability, and finite in half precision."""


@dataclass(frozen=True)
class ModelSpec:
    """All it takes to build a model again; plain values, kept in the bundle.

    Attributes:
        name: a name in `MODELS`.
        in_channels: C.
        num_classes: K.
        encoder: name of the encoder, for models that take one.
        arguments: what the model is told beside, by name.
        mean, std: normalisation after division by `scale`: one number, or one a channel.
        scale: full scale of the input: 255 for uint8, 65535 for uint16, 1 for floats.
        never_predict: labels that the model must not answer.

    Raises:
        RecipeError: a number is out of range.
    """

    name: str
    in_channels: int
    num_classes: int
    encoder: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 255.0
    never_predict: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.in_channels < 1:
            raise RecipeError(f"{self.in_channels} input channels", mend="use at least one")
        if not 1 <= self.num_classes <= IGNORE_INDEX:
            raise RecipeError(f"{self.num_classes} classes", mend=f"use 1 to {IGNORE_INDEX}")
        for what, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.in_channels) or not all(map(math.isfinite, values)):
                problem = f"normalisation {what} {list(values)} for {self.in_channels} channels"
                raise RecipeError(problem, mend="give one finite number, or one a channel")
        if min(self.std) <= 0 or not 0 < self.scale < math.inf:
            problem = f"normalisation with std {list(self.std)} and scale {self.scale}"
            raise RecipeError(problem, mend="use numbers above 0")
        bad = [label for label in self.never_predict if not 0 <= label < self.num_classes]
        if bad or len(set(self.never_predict)) == self.num_classes:
            problem = f"never_predict {list(self.never_predict)} of {self.num_classes} classes"
            raise RecipeError(problem, mend="name labels of the model, and leave at least one to predict")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Self:
        """The spec that `as_dict` wrote, also after a way through JSON.

        Raises:
            TypeError: a key is missing or unknown.
        """
        known = {entry.name for entry in fields(cls)}
        if unknown := sorted(set(tree) - known):
            raise TypeError(f"unknown key '{unknown[0]}'")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in tree.items()}
        return cls(**values)


@dataclass(frozen=True)
class InputSize:
    """The sides that a network takes: `offset` more than a multiple of `stride`, and at least `minimum`.

    Attributes:
        stride: in pixels.
        offset: 0 for networks with padded convolutions.
        margin: pixels that the network takes off each side.
        minimum: in pixels, margin included; must fit stride and offset.
    """

    stride: int
    offset: int = 0
    margin: int = 0
    minimum: int = 1

    def padding(self, side: int) -> tuple[int, int]:
        """Pixels to add before and after a side, so that the output covers it."""
        wanted = max(side + 2 * self.margin, self.minimum)
        fitting = wanted + (self.offset - wanted) % self.stride
        return self.margin, fitting - self.margin - side


@final
class SegmentationModel(nn.Module):
    """A network with all that stands around it; built by `build_model`.

    Attributes:
        spec: what it was built from.
        net: (N, C, H, W) normalised -> (N, K, H - 2 margin, W - 2 margin), or in training a tuple of those of all its
            heads, the main one first.
        input_size: the sides that `net` takes.
        frozen: names of the parts that do not learn; see `freezing.py`.
        held: those of them that nothing lets go.
    """

    gain: Tensor
    shift: Tensor
    penalty: Tensor

    def __init__(
        self,
        spec: ModelSpec,
        net: nn.Module,
        *,
        encoder: nn.Module | None,
        input_size: InputSize,
        lone_image: bool = True,
    ) -> None:
        """Wrap a network.

        Args:
            spec: what `net` was built from.
            net: the network.
            encoder: the part of `net` that may carry loaded weights.
            input_size: the sides that `net` takes.
            lone_image: whether `net` can train on one image; False where it normalises globally pooled features.
        """
        super().__init__()
        stride_pointwise_by_slicing(net)
        self.net = net
        self.input_size = input_size
        # In a list, so that its parameters are not registered a second time.
        self._encoder = [encoder]
        self._lone_image = lone_image
        self.frozen: tuple[str, ...] = ()
        self.held: tuple[str, ...] = ()
        # Not in the state: the spec brings them back.
        for name in ("gain", "shift", "penalty"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        self.penalty = torch.zeros(1, spec.num_classes, 1, 1)
        self.penalty[:, list(spec.never_predict)] = NEVER
        self.spec = spec
        self.set_normalization(mean=spec.mean, std=spec.std)

    @property
    def encoder(self) -> nn.Module | None:
        return self._encoder[0]

    @property
    def heads(self) -> tuple[Head, ...]:
        """What the network answers while it trains, and what each answer is taught; empty where the classes alone."""
        heads: tuple[Head, ...] = getattr(self.net, "heads", ())
        return heads

    @property
    def takes_masks(self) -> bool:
        """Whether the network learns from damaged truth; it pads nothing then."""
        return bool(getattr(self.net, "takes_masks", False))

    @property
    def stride(self) -> int:
        """Sides that are multiples of this need no padding (beside a margin)."""
        return self.input_size.stride

    def set_normalization(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Change mean and standard deviation, in the spec too.

        Raises:
            RecipeError: they do not fit the channels.
        """
        self.spec = replace(self.spec, mean=tuple(mean), std=tuple(std))
        channels = self.spec.in_channels
        means, stds = (torch.tensor(v, dtype=torch.float64).expand(channels) for v in (self.spec.mean, self.spec.std))
        device = self.gain.device
        self.gain = (1 / (self.spec.scale * stds)).to(device, torch.float32)
        self.shift = (-means / stds).to(device, torch.float32)

    def forward(self, images: Images, masks: Masks | None = None) -> Logits | tuple[Tensor, ...]:
        """Logits (N, K, H, W) of raw images (N, C, H, W), in the type that autocast gives; in training of every head.

        Args:
            images: as they are stored.
            masks: the truth (N, H, W), for networks that learn from a damaged copy of it (`takes_masks`); others never
                see it.

        Raises:
            RecipeError: the channels are not those of the spec, or the network answers in another size.
        """
        if images.shape[1] != self.spec.in_channels:
            problem = f"images of {images.shape[1]} channels for a model of {self.spec.in_channels}"
            raise RecipeError(problem, mend="give images as in training")
        height, width = images.shape[-2:]
        answer = self._answer(self._normalized(self._padded(images)), masks if self.takes_masks else None)
        if not isinstance(answer, tuple):
            return self._finished(answer, height, width, in_place=True)
        said = self.heads or (Head("any"),) * len(answer)
        return tuple(
            self._finished(logits, height, width, in_place=False) if head.of_classes else logits[..., :height, :width]
            for logits, head in zip(answer, said, strict=True)
        )

    def _finished(self, logits: Tensor, height: int, width: int, *, in_place: bool) -> Tensor:
        """Without the classes that are never predicted, and as large as the image."""
        if self.spec.never_predict:
            # Logits are the largest tensor of a step, and no layer that ends a network needs them again; but a head's
            # may be needed by another head.
            penalty = self.penalty.to(logits.dtype)
            logits = logits.add_(penalty) if in_place else logits + penalty
        if logits.shape[-2:] == (height, width):
            return logits
        return logits[..., :height, :width]

    def train(self, mode: bool = True) -> Self:
        """As in torch, but frozen parts stay in evaluation mode: their statistics do not move."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def _answer(self, x: Tensor, masks: Masks | None) -> Tensor | tuple[Tensor, ...]:
        """What the network says: of one head, or in training of several."""
        given = () if masks is None else (masks,)
        alone = self.training and len(x) == 1 and not self._lone_image
        # A batch norm over one pooled value has no variance; the same image twice gives its shift alone.
        answer: Tensor | tuple[Tensor, ...] = self.net(torch.cat([x, x]) if alone else x, *given)
        heads = answer if isinstance(answer, tuple) else (answer,)
        if alone:
            heads = tuple(head[:1] for head in heads)
        margin = 2 * self.input_size.margin
        wanted = (x.shape[-2] - margin, x.shape[-1] - margin)
        for head in heads:
            # One pixel stands for the whole image.
            if tuple(head.shape[-2:]) not in (wanted, (1, 1)):
                problem = f"{self.spec.name} answers {tuple(head.shape[-2:])} where {wanted} is wanted"
                raise RecipeError(problem, mend="take 'upsampling' or the depth out of model.arguments")
        return heads if isinstance(answer, tuple) else heads[0]

    def _padded(self, images: Tensor) -> Tensor:
        """Padded while still in bytes; by index, since a small image may be reflected more than once."""
        # `index_select` answers in the order of its axes, so the axes are put into the order of the memory.
        pixels_last = images.is_contiguous()
        view = images if pixels_last else images.permute(0, 2, 3, 1)
        first = 2 if pixels_last else 1
        for axis in (first, first + 1):
            side = view.shape[axis]
            before, after = self.input_size.padding(side)
            if torch.compiler.is_exporting() or before or after:
                view = view.index_select(axis, _reflected(side, before, after, device=images.device))
        return view if pixels_last else view.permute(0, 3, 1, 2)

    def _normalized(self, images: Tensor) -> Tensor:
        """Float32 in channels-last order, whatever the order of the bytes."""
        n, channels, height, width = images.shape
        in_planes = channels > 1 and not images.is_contiguous(memory_format=torch.channels_last)
        if torch.compiler.is_exporting() or in_planes:
            planes = torch.addcmul(self.shift.view(-1, 1, 1), images.float(), self.gain.view(-1, 1, 1))
            return planes.contiguous(memory_format=torch.channels_last)
        # A whole row as one vector: broadcasting over three channels at a time is several times slower.
        rows = images.permute(0, 2, 3, 1).reshape(n * height, width * channels).float()
        rows = torch.addcmul(self.shift.repeat(width), rows, self.gain.repeat(width))
        return rows.view(n, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class ModelEntry:
    """A row of the table of models.

    Attributes:
        build: the model from a checked spec.
        paper: link to where it comes from.
        line: what it is, in one line.
        arguments: names and defaults of what it may be told.
        takes_encoder: whether `spec.encoder` is read.
        label_arguments: those that hold labels, for which a recipe may give names of classes.
    """

    build: Callable[[ModelSpec], SegmentationModel]
    paper: str
    line: str
    arguments: Mapping[str, Any]
    takes_encoder: bool
    label_arguments: tuple[str, ...] = ()


def _reflected(side: int, before: int, after: int, *, device: torch.device) -> Tensor:
    """Indices along a side, reflected at its ends without repeating the border pixel, as often as needed."""
    if side == 1:
        return torch.zeros(before + 1 + after, dtype=torch.int64, device=device)
    period = 2 * side - 2
    index = torch.arange(-before, side + after, device=device).abs() % period
    return torch.where(index < side, index, period - index)
