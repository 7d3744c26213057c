"""Pseudo-labels: what a model says of unlabelled images, where it is sure, taken for the truth.

    Lee 2013, Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks,
        https://www.kaggle.com/blobs/download/forum-message-attachment-files/746/pseudo_label_final.pdf
    Xie et al. 2020, Self-training with Noisy Student improves ImageNet classification,
        https://arxiv.org/abs/1911.04252: a student learns from both, with noise (here: the augmentation) that the
        teacher did not see

A pixel whose likeliest class has at least the asked probability gets that class; all others are void (255) and count
in no loss. No picture of the validation or test side may come in this way: its label would be the teacher's guess of
what the student is then examined on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segwright.data.new_set import Originals
from segwright.data.packing import pixel_digest, storable
from segwright.data.pseudo_set import PseudoLabel
from segwright.data.sources import Source
from segwright.errors import SegwrightError, SplitError
from segwright.prediction.fitting import fit_small
from segwright.prediction.predictor import Predictor
from segwright.types import IGNORE_INDEX, ImageArray, Sample, SplitName

GroupOf = Callable[[Sample], str | None]


@dataclass(frozen=True)
class Candidates:
    """Images that may be labelled by a model.

    Attributes:
        source: where they lie.
        samples: those that can be read and that the run does not hold yet.
        left_out: why others are not among them, by id.
        group_of: the group of each, or None.
    """

    source: Source
    samples: Sequence[Sample]
    left_out: dict[str, str]
    group_of: GroupOf


def candidates(source: Source, originals: Originals, *, group_of: GroupOf) -> Candidates:
    """Look at all images once, before a model does.

    Args:
        source: of unlabelled images.
        originals: of the run that they are to join.
        group_of: the group of an image, or None.

    Raises:
        SplitError: a picture, or its group, stands on the run's validation or test side.
    """
    pictures, groups = _sides(originals)
    samples: list[Sample] = []
    left_out: dict[str, str] = {}
    seen: dict[str, str] = {}
    for sample in source.samples:
        try:
            digest = pixel_digest(storable(source.read_image(sample)))
        except SegwrightError as error:
            left_out[sample.id] = str(error)
            continue
        group = group_of(sample)
        held = pictures.get(digest) or (None if group is None else groups.get(group))
        if held is not None and held[1] != "train":
            what = "" if digest in pictures else f"belongs to group '{group}', as "
            raise SplitError(
                f"image '{sample.id}' {what or 'is '}'{held[0]}' on the {held[1]} side of the run",
                mend="leave it out: a model must not learn, even by its own guesses, what it is examined on",
            )
        if digest in pictures:
            left_out[sample.id] = f"is the training image '{pictures[digest][0]}'"
        elif digest in seen:
            left_out[sample.id] = f"is the same picture as '{seen[digest]}'"
        else:
            samples.append(sample)
            seen[digest] = sample.id
    return Candidates(source, samples, left_out, group_of)


Places = Mapping[str, tuple[str, SplitName]]
"""Id and side of an image that is there, by its picture or its group."""


def _sides(originals: Originals) -> tuple[Places, Places]:
    """Id and side of each picture, by its digest, and of each group; of labelled images alone.

    Unlabelled images of a test side are scored by nobody here, and are what pseudo-labels are for.
    """
    pack = originals.pack
    pictures: dict[str, tuple[str, SplitName]] = {}
    groups: dict[str, tuple[str, SplitName]] = {}
    for i, name in enumerate(pack.ids):
        side = originals.split.get(name)
        if side is None or not pack.has_mask[i]:
            continue
        pictures[pack.image_digest[i]] = (name, side)
        if originals.groups[i] is not None:
            groups[str(originals.groups[i])] = (name, side)
    return pictures, groups


def pseudo_labels(predictor: Predictor, found: Candidates, *, confidence: float) -> Iterator[PseudoLabel]:
    """The label of each image, as the model gives it; images that do not fit the model are added to `found.left_out`.

    Args:
        predictor: the teacher.
        found: the images.
        confidence: the least probability with which a pixel is labelled.
    """
    waiting: deque[tuple[int, Sample, ImageArray]] = deque()

    def feed() -> Iterator[ImageArray]:
        for number, sample in enumerate(found.samples):
            try:
                image = found.source.read_image(sample)
                fitted = fit_small(image, predictor.model.spec)
            except SegwrightError as error:
                found.left_out[sample.id] = str(error)
                continue
            waiting.append((number, sample, storable(image).transpose(2, 0, 1)))
            yield fitted

    for prediction in predictor.predict_many(feed(), probs=True):
        number, sample, image = waiting.popleft()
        assert prediction.probs is not None, "they were asked for"
        sure = prediction.probs.max(axis=0)
        yield PseudoLabel(
            number=number,
            id=sample.id,
            original=found.source.place(sample),
            group=found.group_of(sample),
            image=image,
            pred=prediction.mask,
            mask=np.where(sure >= confidence, prediction.mask, np.uint8(IGNORE_INDEX)),
            mean_confidence=float(sure.mean()),
        )
