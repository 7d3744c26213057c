"""The loss of a network with several heads, each of which may be taught something else than the classes themselves.

A head without a lesson of its own is deep supervision (Lee et al. 2015, https://arxiv.org/abs/1409.5185): it counts
`HEAD_SHARE` of the one before it. Heads with one (`types.Head`) are taught other labels, such as one class against all
others, or one thing about the whole image; each counts 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from segwright.errors import RecipeError, nearest
from segwright.losses import HEAD_SHARE, WeightedLoss
from segwright.losses.counts import Total
from segwright.tensors import Logits, Masks
from segwright.types import IGNORE_INDEX, Head


@final
class HeadsLoss(nn.Module):
    """The mean of the heads' losses; of the main head's logits alone, its own loss.

    Args:
        heads: of the network, the main one first.
        losses: one a head: for its own number of classes.
        taught: names of the heads that count; none: all but those on demand.
        ignored: labels that no head learns; those of heads without labels of their own are left to their loss.

    Attributes:
        progress: spent share of the budget, 0..1, as in `WeightedLoss`.

    Raises:
        RecipeError: a name is no head.
    """

    tables: Tensor
    kept: Tensor

    def __init__(
        self, heads: Sequence[Head], losses: Sequence[WeightedLoss], *, taught: Sequence[str] = (),
        ignored: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        names = [head.name for head in heads]
        for name in taught:
            if name not in names:
                raise RecipeError(f"the model has no head '{name}'", mend=nearest(name, names))
        self._heads = tuple(heads)
        self._losses = nn.ModuleList(losses)
        chosen = taught or [head.name for head in heads if not head.on_demand]
        self._taught = [place for place, name in enumerate(names) if name in chosen]
        # Not part of a checkpoint: the model brings them back.
        self.register_buffer("kept", _table(Head("all", labels=tuple(range(IGNORE_INDEX))), ignored), persistent=False)
        self.register_buffer("tables", torch.stack([_table(head, ignored) for head in heads]), persistent=False)

    @property
    def progress(self) -> float:
        return self._main.progress

    @progress.setter
    def progress(self, value: float) -> None:
        for loss in self._losses:
            assert isinstance(loss, WeightedLoss)
            loss.progress = value

    def forward(self, logits: Logits | Sequence[Tensor], masks: Masks, *, total: Total | None = None) -> Tensor:
        """The loss of a batch, a float32 scalar.

        Args:
            logits: (N, K, H, W) of the main head, or those of all heads in their order.
            masks: (N, H, W) labels 0..K-1 or 255.
            total: as in `WeightedLoss`.
        """
        if isinstance(logits, Tensor):
            main: Tensor = self._main(logits, masks, total=total)
            return main
        assert len(logits) == len(self._heads), f"{len(logits)} answers of {len(self._heads)} heads"
        values, shares = [], []
        for place in self._taught:
            head, answer = self._heads[place], logits[place]
            truth = self._truth(place, masks)
            if answer.shape[2:] != truth.shape[1:]:
                answer = nn.functional.interpolate(answer, size=truth.shape[1:], mode="bilinear")
            shares.append(HEAD_SHARE ** (place - self._lessons_before(place)) if head.of_classes else 1.0)
            values.append(shares[-1] * self._losses[place](answer, truth, total=total))
        return torch.stack(values).sum() / sum(shares)

    @property
    def _main(self) -> WeightedLoss:
        main = self._losses[0]
        assert isinstance(main, WeightedLoss)
        return main

    def _lessons_before(self, place: int) -> int:
        return sum(not head.of_classes for head in self._heads[:place])

    def _truth(self, place: int, masks: Masks) -> Tensor:
        """What a head is taught: (N, H, W) labels of its own, or (N, 1, 1) of whole images."""
        head = self._heads[place]
        if head.whole is not None:
            masks = self.kept[masks]
            valid = (masks != IGNORE_INDEX).sum((1, 2))
            there = (masks == head.whole).sum((1, 2))
            whole = (there > head.whole_share * valid).long()
            return torch.where(valid > 0, whole, IGNORE_INDEX)[:, None, None]
        return self.tables[place][masks] if head.labels else masks


def _table(head: Head, ignored: Sequence[int]) -> Tensor:
    """(256,) the label of a head for each label of a mask."""
    table = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX, dtype=torch.int64)
    if head.labels:
        table[: len(head.labels)] = torch.tensor(head.labels)
        table[list(ignored)] = IGNORE_INDEX
    return table
