"""Evaluate: run a model over labelled images at their native size and keep the counts of each.

Nothing but counts and ten small examples is kept, so memory stays constant however many images there are. Scores, their
intervals and every later comparison are computed from the counts on disk.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segwright.augment.matching import Matching
from segwright.bundle import Bundle
from segwright.data.pack import Pack
from segwright.errors import DataError
from segwright.evaluation.counting import Counted, Network
from segwright.evaluation.examples import Example, ExampleKeeper
from segwright.evaluation.summary import prevalent, summarize
from segwright.files import write_arrays, write_csv, write_json
from segwright.hardware import choose_device
from segwright.metrics import Definition, score
from segwright.prediction.tta import Flips
from segwright.types import ClassSet


@dataclass(frozen=True)
class Evaluation:
    """What a model scored on one split.

    Attributes:
        split: train, val, test, or the name that was given to other data.
        ids: of the images, in the order of the counts.
        confusion: counts of each image.
        boundary: contour counts of each image, see `metrics.boundary_counts`.
        summary: all scores with intervals, see `summary.summarize`, and how long it took.
        score_as: the definition of `miou`, see `metrics.DEFINITIONS`.
    """

    split: str
    ids: tuple[str, ...]
    confusion: Int64[np.ndarray, "N K K"]
    boundary: Int64[np.ndarray, "N K 4"]
    summary: dict[str, Any]
    score_as: Definition = "declared"

    @property
    def miou(self) -> float:
        """Under the definition that was asked for; its sentence and interval stand in `summary["definitions"]`."""
        return float(self.summary["definitions"][self.score_as]["miou"]["estimate"])


def evaluate(
    bundle: Bundle,
    pack: Pack,
    indices: Sequence[int] | np.ndarray,
    *,
    split_name: str,
    out: Path | None,
    device: str = "auto",
    batch_size: int = 8,
    groups: Sequence[object] | None = None,
    match: Matching = "none",
    flips: Flips = "none",
    loss: float | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score a model on the labelled images among `indices`; large ones in tiles, see `data.tiles`.

    Args:
        bundle: the model and its classes.
        pack: the images.
        indices: positions in the pack; images without a mask are passed over.
        split_name: names the files.
        out: the run folder; `scores/<split>.npz`, `.json`, `.csv`, `_images.csv` and `_examples.npz` are written there.
        device: auto, cpu, cuda ...
        batch_size: images of one size that go through the network at once.
        groups: one for each image of the pack; images of one group are resampled together.
        match: bring the tones of every image to those of the training images first (see `segwright.augment.matching`).
        flips: average the probabilities over mirrored and turned copies (see `segwright.prediction.tta`).
        loss: of these images, to be written beside their scores (see `segwright.evaluation.loss`).
        progress: show a bar.

    Raises:
        DataError: no image has a mask, or the images do not fit the model.
        MaskError: a mask holds a label that the model has no class for.
        RecipeError: the bundle keeps no tones to match, or there are no such flips.
    """
    labelled = [int(i) for i in indices if pack.has_mask[int(i)]]
    if not labelled:
        raise DataError(f"none of the {len(indices)} images of '{split_name}' has a mask", mend="give labelled images")
    network = Network(bundle, choose_device(device), batch_size, match=match, flips=flips)
    started = time.perf_counter()
    keeper = ExampleKeeper()
    order: list[int] = []
    confusion, boundary = [], []
    for counted in _with_bar(network.count(pack, labelled), total=len(labelled), label=split_name, show=progress):
        order.append(counted.index)
        confusion.append(counted.confusion)
        boundary.append(counted.boundary)
        truth = pack.mask(counted.index)
        assert truth is not None, "unlabelled images were left out"
        miou = float(score(counted.confusion, bundle.classes).miou)
        keeper.offer(pack.ids[counted.index], miou, pack.image(counted.index), truth, counted.pred)
    counts, contours = np.stack(confusion), np.stack(boundary)
    chosen = None if groups is None else [groups[i] for i in order]
    summary = {
        "split": split_name,
        "unlabelled": len(indices) - len(labelled),
        **summarize(counts, contours, bundle.classes, groups=chosen),
        "device": str(network.device),
        "precision": network.precision,
        "match": match,
        "flips": flips,
        **({} if loss is None else {"loss": loss}),
        "images_per_second": len(order) / max(network.seconds, 1e-9),
        "seconds": time.perf_counter() - started,
    }
    result = Evaluation(split_name, tuple(pack.ids[i] for i in order), counts, contours, summary)
    if out is not None:
        _write(result, out / "scores", classes=bundle.classes, examples=keeper.kept(), groups=chosen)
    return result


def _with_bar(images: Iterable[Counted], *, total: int, label: str, show: bool) -> Iterator[Counted]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not show, transient=True) as bar:
        task = bar.add_task(f"evaluating {label}", total=total)
        for counted in images:
            yield counted
            bar.advance(task)


def _write(
    result: Evaluation, folder: Path, *, classes: ClassSet, examples: Sequence[Example], groups: Sequence[object] | None
) -> None:
    true, pred = prevalent(result.confusion, classes)
    write_arrays(
        folder / f"{result.split}.npz",
        {
            "ids": np.array(result.ids),
            "confusion": result.confusion,
            "boundary": result.boundary,
            "prevalent_true": true,
            "prevalent_pred": pred,
            **({} if groups is None else {"groups": np.array([str(group) for group in groups], dtype=np.str_)}),
        },
    )
    arrays: dict[str, np.ndarray] = {
        "ids": np.array([example.id for example in examples], dtype=np.str_),
        "scores": np.array([example.score for example in examples]),
        "kinds": np.array([example.kind for example in examples], dtype=np.str_),
    }
    for position, example in enumerate(examples):
        arrays |= {f"{part}_{position}": getattr(example, part) for part in ("image", "mask", "pred")}
    write_arrays(folder / f"{result.split}_examples.npz", arrays)
    write_csv(folder / f"{result.split}.csv", _class_table(result))
    write_csv(folder / f"{result.split}_images.csv", _image_table(result, classes, prevalent_classes=(true, pred)))
    write_json(folder / f"{result.split}.json", result.summary)


def _class_table(result: Evaluation) -> list[Sequence[Any]]:
    names = ("iou", "dice", "accuracy", "boundary_f1")
    heads = [head for name in names for head in (name, f"{name}_low", f"{name}_high")]
    rows = [
        [
            row["name"],
            row["in_mean"],
            *(row[name][key] for name in names for key in ("estimate", "low", "high")),
            row["true_pixels"],
            row["images"],
        ]
        for row in result.summary["per_class"]
    ]
    return [["class", "in_mean", *heads, "true_pixels", "images"], *rows]


def _image_table(
    result: Evaluation, classes: ClassSet, *, prevalent_classes: tuple[np.ndarray, np.ndarray]
) -> list[Sequence[Any]]:
    each = score(result.confusion, classes)
    names = [["" if k < 0 else classes.names[k] for k in labels] for labels in prevalent_classes]
    rows = zip(result.ids, each.miou, each.pixel_accuracy, *names, strict=True)
    return [["id", "miou", "pixel_accuracy", "prevalent_true", "prevalent_pred"], *rows]
