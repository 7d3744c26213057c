"""A small model trained for an audit: what it says of images that it did not see, and what a leaking split flatters.

The model is trained several times, each time without one part of the images, and then asked about that part
(cross-validation: Stone 1974, https://doi.org/10.1111/j.2517-6161.1974.tb00994.x). Pictures of one group stay together.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from segwright.auditing.encoder_features import encoder_of
from segwright.auditing.opinions import LONGER_SIDE_PX, write_opinions
from segwright.bundle import load_bundle
from segwright.data.card import read_card, write_card
from segwright.data.sources import Source, open_source
from segwright.data.splits import read_split, write_split
from segwright.evaluation.evaluate import Evaluation, evaluate
from segwright.evaluation.statistics import paired_difference
from segwright.metrics import class_counts, score_counts
from segwright.prediction.fitting import scale_down
from segwright.prediction.predictor import Predictor
from segwright.recipe import Recipe, make_recipe
from segwright.run_images import own_images
from segwright.training.run import train
from segwright.types import SplitName

PARTS = 3
MINUTES = 6.0
VAL_SHARE = 0.15


def out_of_fold(
    card: Path, out: Path, *, minutes: float = MINUTES, weights: Path | None = None, progress: bool = True
) -> Path:
    """Train a small model by parts, and write what it says of each part; see `opinions` for the file.

    Args:
        card: a data card that can be trained on, such as a repaired one.
        out: the npz.
        minutes: for all parts together.
        weights: of an encoder to start from; None starts from scratch, or from ImageNet where that can be had.
        progress: show how far it is, on a terminal.

    Raises:
        SegwrightError: the card cannot be trained on.
    """
    source = open_source(card)
    write_opinions(
        out, _opinions(card, source, minutes=minutes, weights=weights, progress=progress), classes=source.classes.names
    )
    return out


def _opinions(
    card: Path, source: Source, *, minutes: float, weights: Path | None, progress: bool
) -> Iterator[tuple[str, np.ndarray]]:
    samples = {sample.id: sample for sample in source.samples if sample.mask is not None}
    for part in _with_bar(range(PARTS), text=f"asking a model, about {minutes:.0f} minutes", show=progress):
        split = {"kind": "kfold", "folds": PARTS, "fold": part}
        with tempfile.TemporaryDirectory(prefix="segwright-audit-") as folder:
            run = Path(folder) / "run"
            train(_recipe(card, split, minutes=minutes / PARTS, weights=weights), run=run, progress=False)
            predictor = Predictor(load_bundle(run))
            asked = [name for name, side in read_split(run / "split.json", tuple(samples)).items() if side == "val"]
            images = (scale_down(source.read_image(samples[name]), longer_side_px=LONGER_SIDE_PX) for name in asked)
            for name, prediction in zip(asked, predictor.predict_many(images, probs=True), strict=True):
                assert prediction.probs is not None, "probabilities were asked for"
                yield name, prediction.probs


def _recipe(card: Path, split: Mapping[str, Any], *, minutes: float, weights: Path | None) -> Recipe:
    model: dict[str, Any] = {"name": "fpn", "encoder": "resnet18", "weights": "auto"}
    if weights is not None:
        model |= {"encoder": encoder_of(weights), "weights": str(weights.resolve())}
    return make_recipe(
        {
            "data": {"path": str(card), "working_size_px": LONGER_SIDE_PX, "audit": False, "split": dict(split)},
            "model": model,
            "training": {"minutes": minutes},
        }
    )


@dataclass(frozen=True)
class Inflation:
    """How much better a model looks on pictures whose neighbours it was trained on.

    Attributes:
        leaking: mean IoU with neighbours of the validation pictures in the training.
        clean: with as many other pictures in their place.
        difference, low, high: leaking - clean, and its 95 % interval over groups of validation pictures.
        images: validation pictures that have neighbours.
    """

    leaking: float
    clean: float
    difference: float
    low: float
    high: float
    images: int


def inflation(
    card: Path,
    groups: Mapping[str, str],
    *,
    minutes: float = MINUTES,
    weights: Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Inflation | None:
    """Train twice on equally many pictures, with and without neighbours of the same validation pictures.

    Args:
        card: a data card that can be trained on.
        groups: id -> group, of pictures that show one place.
        minutes: for both trainings together.
        weights: as for `out_of_fold`.
        seed: of the choice of pictures.
        progress: show how far it is.

    Returns:
        None where no picture has a neighbour, or no others are left to take their place.

    Raises:
        SegwrightError: the card cannot be trained on.
    """
    source = open_source(card)
    ids = [sample.id for sample in source.samples if sample.mask is not None and sample.split != "test"]
    chosen = _choice(ids, groups, seed=seed)
    if chosen is None:
        return None
    val, leaking, clean = chosen
    results = []
    with tempfile.TemporaryDirectory(prefix="segwright-audit-") as folder:
        ungrouped = Path(folder) / "card.yaml"
        named = {**read_card(card).model_dump(mode="json"), "groups": None, "split": None}
        write_card(ungrouped, {**named, "source": str((card.parent / named["source"]).resolve())})
        text = f"training with and without neighbours, about {minutes:.0f} minutes"
        for number, learnt in enumerate(_with_bar([leaking, clean], text=text, show=progress)):
            file = Path(folder) / f"split-{number}.json"
            sides: dict[str, SplitName] = {**dict.fromkeys(learnt, "train"), **dict.fromkeys(val, "val")}
            write_split(file, sides)
            recipe = _recipe(ungrouped, {"kind": "given", "file": str(file)}, minutes=minutes / 2, weights=weights)
            run = Path(folder) / f"run-{number}"
            train(recipe, run=run, progress=False)
            results.append(_scored(recipe, run))
    a, b = results
    order = [b.ids.index(name) for name in a.ids]
    compared = paired_difference(
        class_counts(a.confusion, source.classes),
        class_counts(b.confusion[order], source.classes),
        lambda sums: score_counts(sums, source.classes).miou,
        groups=[groups.get(name, name) for name in a.ids],
    )
    found = compared.difference
    neighbours = sum(name in groups for name in val)
    return Inflation(a.miou, b.miou, found.estimate, found.low, found.high, neighbours)


def _scored(recipe: Recipe, run: Path) -> Evaluation:
    images = own_images(recipe, run, side="val", progress=False)
    return evaluate(load_bundle(run), images.pack, images.indices, split_name="val", out=None, progress=False)


def _choice(ids: list[str], groups: Mapping[str, str], *, seed: int) -> tuple[list[str], list[str], list[str]] | None:
    """Validation pictures, and equally many training pictures with and without neighbours of them.

    Whole groups are drawn: half of each is judged, the other half are its neighbours. Pictures drawn one by one would
    touch nearly every group, and leave nothing to train on that is no neighbour.
    """
    rng = np.random.default_rng(seed)
    together: dict[str, list[str]] = {}
    for name in ids:
        together.setdefault(groups.get(name, f"picture {name}"), []).append(name)
    units = list(together.values())
    val: list[str] = []
    neighbours: list[str] = []
    held: set[str] = set()
    for i in rng.permutation(len(units)):
        if len(val) >= VAL_SHARE * len(ids):
            break
        mixed = [units[i][k] for k in rng.permutation(len(units[i]))]
        half = math.ceil(len(mixed) / 2)
        val += mixed[:half]
        neighbours += mixed[half:]
        held.update(mixed)
    others = [name for name in ids if name not in held]
    others = [others[k] for k in rng.permutation(len(others))]
    if not neighbours or len(others) <= len(neighbours):
        return None
    return val, neighbours + others[: len(others) - len(neighbours)], others


def _with_bar(things: Sequence[Any], *, text: str, show: bool) -> Iterator[Any]:
    console = Console(stderr=True)
    hidden = not (show and console.is_terminal)
    yield from track(things, description=text, console=console, transient=True, disable=hidden)
