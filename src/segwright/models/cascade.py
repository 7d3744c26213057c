"""A refiner after any model, and a cascade: judges of whole images, a segmenter, a refiner.

The cascade is that of a course project. Many of its images were all one class, so for each such class a small
classifier (MobileViT, Mehta and Rastegari 2022, https://arxiv.org/abs/2110.02178) tells with a probability g_k whether
more than nine tenths of an image are class k; a segmenter is trained with the rare classes relabelled to background;
what both say is mixed, and a refiner that learns all classes cleans it:

    p = (1 - sum_k g_k) softmax(segmenter) + sum_k g_k [class k]        (g scaled down where they add up to more than 1)

The refiner learns from p without moving what lies before it. Judges, segmenter and refiner may learn together, or in
stages (`stages:` of a recipe with `training.trainable` and `loss.heads`).

Symbols: N images, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import RecipeError, one_line
from segwright.models.blocks import start_silent
from segwright.models.branches import Build, main_of, member_spec
from segwright.models.class_wise import labels_of
from segwright.models.refiner import ARGUMENTS as REFINER_ARGUMENTS
from segwright.models.refiner import DAMAGED_SHARE, Refiner, damaged
from segwright.models.segmenter import InputSize, ModelEntry, ModelSpec, SegmentationModel
from segwright.tensors import Masks
from segwright.types import Head

JUDGED_PX = 128
"""Judges of whole images see them at this size."""

_SHUT = 4.0
_LEAST = 1e-6


@final
class Refined(nn.Module):
    """A model and a refiner: (N, C, H, W) -> (N, K, H, W); in training that, and the logits of the model.

    Args:
        base: any model.
        refiner: of the same channels and classes.
    """

    takes_masks = True
    heads = (Head("main"), Head("base"))

    def __init__(self, base: SegmentationModel, refiner: Refiner) -> None:
        super().__init__()
        self.base = base
        self.refiner = refiner

    def forward(self, x: Tensor, masks: Masks | None = None) -> Tensor | tuple[Tensor, Tensor]:
        logits = main_of(self.base(x))
        refined = _refined(self.refiner, x, F.log_softmax(logits.float(), dim=1), masks)
        return (refined, logits) if self.training else refined


@final
class Cascade(nn.Module):
    """(N, C, H, W) -> (N, K, H, W); in training that, the segmenter's logits, and (N, 2, 1, 1) of each judge.

    Args:
        segmenter: any model.
        judges: images (N, C, h, w) to (N, 2), one for each of `whole`.
        refiner: of the same channels and classes.
        whole: the label that each judge looks for.
        relabelled: what the segmenter is taught for each label.
        whole_share: share of an image's labelled pixels beyond which it is all one class.
    """

    takes_masks = True

    def __init__(
        self,
        segmenter: SegmentationModel,
        judges: Sequence[nn.Module],
        refiner: Refiner,
        *,
        whole: Sequence[int],
        relabelled: Sequence[int],
        whole_share: float = Head.whole_share,
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.judges = nn.ModuleList(judges)
        self.refiner = refiner
        self._whole = tuple(whole)
        count = len(relabelled)
        self.heads = (
            Head("main"),
            Head("segmenter", labels=tuple(relabelled), num_classes=count),
            *(Head(f"whole {label}", whole=label, num_classes=2, whole_share=whole_share) for label in whole),
        )

    def forward(self, x: Tensor, masks: Masks | None = None) -> Tensor | tuple[Tensor, ...]:
        logits = main_of(self.segmenter(x))
        small = F.interpolate(x, size=(JUDGED_PX, JUDGED_PX), mode="bilinear", antialias=True)
        answers = [judge(small) for judge in self.judges]
        mixed = F.log_softmax(logits.float(), dim=1)
        if answers:
            mixed = self._mixed(mixed, torch.stack([one.float().softmax(1)[:, 1] for one in answers], dim=1))
        refined = _refined(self.refiner, x, mixed, masks)
        return (refined, logits, *(one[:, :, None, None] for one in answers)) if self.training else refined

    def _mixed(self, log_probs: Tensor, gates: Tensor) -> Tensor:
        """Log of the mixture; gates (N, judges) in 0..1."""
        gates = gates / gates.sum(1, keepdim=True).clamp(min=1)
        certain = torch.zeros_like(log_probs[:, :, :1, :1]).index_add(
            1, torch.tensor(self._whole, device=gates.device), gates[:, :, None, None].to(log_probs.dtype)
        )
        rest = 1 - gates.sum(1)[:, None, None, None]
        return (rest * log_probs.exp() + certain).clamp(min=_LEAST).log()


def _refined(refiner: Refiner, x: Tensor, log_probs: Tensor, masks: Masks | None) -> Tensor:
    """What the refiner makes of an answer, or, for some training images, of damaged truth."""
    seen = log_probs.detach()
    if refiner.training and masks is not None:
        false = damaged(masks, num_classes=seen.shape[1]).to(seen.dtype)
        chosen = torch.rand(len(x), 1, 1, 1, device=x.device) < DAMAGED_SHARE
        seen = torch.where(chosen, false, seen)
    refined: Tensor = refiner(x, seen)
    return refined


REFINED_ARGUMENTS: dict[str, Any] = {"base": "unet", **REFINER_ARGUMENTS}
CASCADE_ARGUMENTS: dict[str, Any] = {
    "segmenter": "transunet", "labels": (), "background": 0, "whole": None, "whole_share": Head.whole_share,
    "judge": "mobilevit_xxs",
    **REFINER_ARGUMENTS,
}  # fmt: skip


def cascade_entries(build: Build) -> dict[str, ModelEntry]:
    """Both rows of the table.

    Args:
        build: makes a model.
    """

    def build_refined(spec: ModelSpec) -> SegmentationModel:
        chosen = REFINED_ARGUMENTS | spec.arguments
        base = build(member_spec(chosen["base"], spec, key="base"))
        return SegmentationModel(spec, Refined(base, _refiner(spec, chosen)), encoder=None, input_size=InputSize(1))

    def build_cascade(spec: ModelSpec) -> SegmentationModel:
        chosen = CASCADE_ARGUMENTS | spec.arguments
        rare, (background,) = labels_of(spec, chosen["labels"]), labels_of(spec, [chosen["background"]])
        others = [k for k in range(spec.num_classes) if k not in rare]
        whole = labels_of(spec, others if chosen["whole"] is None else chosen["whole"])
        segmenter = build(member_spec(chosen["segmenter"], spec, key="segmenter"))
        share = chosen["whole_share"]
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            problem = f"{spec.name}: whole_share {share!r}"
            raise RecipeError(problem, mend="give a share of an image above 0 and below 1, such as 0.9")
        net = Cascade(
            segmenter,
            [_judge(str(chosen["judge"]), in_channels=spec.in_channels) for _ in whole],
            _refiner(spec, chosen),
            whole=whole,
            relabelled=[background if k in rare else k for k in range(spec.num_classes)],
            whole_share=share,
        )
        return SegmentationModel(spec, net, encoder=None, input_size=InputSize(1))

    return {
        "refined": ModelEntry(
            build=build_refined,
            paper="https://doi.org/10.1109/TPAMI.2009.186",
            line="any model, then a refiner that reads its labels and cleans them (argument: base)",
            arguments=REFINED_ARGUMENTS,
            takes_encoder=False,
        ),
        "cascade": ModelEntry(
            build=build_cascade,
            paper="https://arxiv.org/abs/2110.02178",
            line="judges of whole images, a segmenter without the rare classes, a refiner (arguments: labels, whole)",
            arguments=CASCADE_ARGUMENTS,
            takes_encoder=False,
            label_arguments=("labels", "background", "whole"),
        ),
    }


def _refiner(spec: ModelSpec, chosen: dict[str, Any]) -> Refiner:
    for name in ("width", "depth"):
        if not isinstance(chosen[name], int) or isinstance(chosen[name], bool) or not 1 <= chosen[name] <= 256:
            raise RecipeError(f"{spec.name}: {name} {chosen[name]!r}", mend="use a whole number of at least 1")
    return Refiner(spec.in_channels, spec.num_classes, width=chosen["width"], depth=chosen["depth"])


def _judge(name: str, *, in_channels: int) -> nn.Module:
    """A classifier of timm that begins by saying no: an untrained judge must not paint images over."""
    mend = f"use a classifier of timm that takes images of {JUDGED_PX} x {JUDGED_PX} pixels"
    try:
        judge: nn.Module = timm.create_model(name, pretrained=False, in_chans=in_channels, num_classes=2)
        last = judge.get_classifier()  # type: ignore[operator]  # of timm's models
        with torch.inference_mode():
            judge.eval()(torch.zeros(1, in_channels, JUDGED_PX, JUDGED_PX))
    except (RuntimeError, AssertionError, AttributeError) as error:
        raise RecipeError(f"cascade: judge '{name}' ({one_line(str(error))})", mend=mend) from None
    if not isinstance(last, nn.Linear | nn.Conv2d) or last.bias is None:
        raise RecipeError(f"cascade: judge '{name}' does not end in a layer that can be shut", mend=mend)
    start_silent(last)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([_SHUT / 2, -_SHUT / 2]))
    return judge.train()
