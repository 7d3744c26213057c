"""Evaluate: run a model over labelled images at their native size and keep the counts of each.

Nothing but counts and ten small examples is kept, so memory stays constant however many images there are. Scores, their
intervals and every later comparison are computed from the counts on disk.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from segwright.bundle import Bundle
from segwright.data.loader import EvalLoader
from segwright.data.pack import Pack
from segwright.errors import DataError
from segwright.evaluation.examples import Example, ExampleKeeper
from segwright.evaluation.summary import prevalent, summarize
from segwright.files import write_arrays, write_json, write_text
from segwright.hardware import Precision, autocast, choose_device, choose_precision
from segwright.metrics import boundary_counts, boundary_tolerance_px, confusion_per_image, score
from segwright.models import SegmentationModel
from segwright.prediction.predictor import fit, scale_down
from segwright.types import IGNORE_INDEX, Batch, ClassSet, Masks


@dataclass(frozen=True)
class Evaluation:
    """What a model scored on one split.

    Attributes:
        split: train, val, test, or the name that was given to other data.
        ids: of the images, in the order of the counts.
        confusion: counts of each image.
        boundary: contour counts of each image, see `metrics.boundary_counts`.
        summary: all scores with intervals, see `summary.summarize`, and how long it took.
    """

    split: str
    ids: tuple[str, ...]
    confusion: Int64[np.ndarray, "N K K"]
    boundary: Int64[np.ndarray, "N K 4"]
    summary: dict[str, Any]

    @property
    def miou(self) -> float:
        """Under the declared rules."""
        return float(self.summary["definitions"]["declared"]["miou"]["estimate"])


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
    progress: bool = True,
) -> Evaluation:
    """Score a model on the labelled images among `indices`.

    Args:
        bundle: the model and its classes.
        pack: the images.
        indices: positions in the pack; images without a mask are passed over.
        split_name: names the files.
        out: the run folder; `scores/<split>.npz`, `.json`, `.csv`, `_images.csv` and `_examples.npz` are written there.
        device: auto, cpu, cuda ...
        batch_size: images of one size that go through the network at once.
        groups: one for each image of the pack; images of one group are resampled together.
        progress: show a bar.

    Raises:
        DataError: no image has a mask, or the images do not fit the model.
        MaskError: a mask holds a label that the model has no class for.
    """
    labelled = [int(i) for i in indices if pack.has_mask[int(i)]]
    if not labelled:
        raise DataError(f"none of the {len(indices)} images of '{split_name}' has a mask", mend="give labelled images")
    where = choose_device(device)
    network = _Network(
        bundle.model.to(where).eval(),
        where,
        choose_precision("auto", device=where),
        longer_side_px=(bundle.info.get("input") or {}).get("working_size_px"),
    )
    started = time.perf_counter()
    keeper = ExampleKeeper()
    order: list[int] = []
    confusion, boundary = [], []
    loader = EvalLoader(pack, labelled, batch_size=batch_size, device=where)
    for batch in _with_bar(loader, total=len(labelled), label=split_name, show=progress):
        assert batch.masks is not None, "unlabelled images were left out"
        pred = network.predict(batch)
        counts = confusion_per_image(pred, batch.masks, num_classes=bundle.classes.num_classes).cpu().numpy()
        confusion.append(counts)
        boundary.append(_contours(pred, batch.masks, classes=bundle.classes))
        order += batch.index.tolist()
        _offer(keeper, pack, batch, pred=pred, scores=score(counts, bundle.classes).miou)
    counts, contours = np.concatenate(confusion), np.concatenate(boundary)
    chosen = None if groups is None else [groups[i] for i in order]
    summary = {
        "split": split_name,
        "unlabelled": len(indices) - len(labelled),
        **summarize(counts, contours, bundle.classes, groups=chosen),
        "device": str(where),
        "precision": network.precision,
        "images_per_second": len(order) / max(network.seconds, 1e-9),
        "seconds": time.perf_counter() - started,
    }
    result = Evaluation(split_name, tuple(pack.ids[i] for i in order), counts, contours, summary)
    if out is not None:
        _write(result, out / "scores", classes=bundle.classes, examples=keeper.kept())
    return result


@dataclass
class _Network:
    """A model on its device, and how long it has computed."""

    model: SegmentationModel
    device: torch.device
    precision: Precision
    longer_side_px: int | None = None
    seconds: float = 0.0

    def predict(self, batch: Batch) -> Masks:
        """The labels (N, H, W) of a batch, at the batch's size."""
        started = time.perf_counter()
        images = _fitted(batch.images, self.model, longer_side_px=self.longer_side_px)
        size = (batch.images.shape[2], batch.images.shape[3])
        pred = self._labels(images.to(self.device, memory_format=torch.channels_last), size=size)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - started
        return pred

    @torch.inference_mode()
    def _labels(self, images: Tensor, *, size: tuple[int, int]) -> Tensor:
        try:
            with autocast(self.precision, device=self.device):
                logits: Tensor = self.model(images)
            if logits.shape[2:] != size:
                logits = nn.functional.interpolate(logits.float(), size=size, mode="bilinear")
            return logits.argmax(1)
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise DataError(
                    f"an image of {images.shape[2]} x {images.shape[3]} pixels does not fit into the memory",
                    mend="set data.working_size_px, or evaluate with --device cpu",
                ) from None
        middle = len(images) // 2
        return torch.cat([self._labels(images[:middle], size=size), self._labels(images[middle:], size=size)])


def _fitted(images: Tensor, model: SegmentationModel, *, longer_side_px: int | None) -> Tensor:
    """As the model was trained: other data may be gray, 16-bit or larger; nothing is done where it fits."""

    def adapted(image: np.ndarray) -> np.ndarray:
        return scale_down(fit(image, model.spec), longer_side_px=longer_side_px)

    first = images[0].cpu().numpy()
    if adapted(first) is first:
        return images
    return torch.from_numpy(np.stack([adapted(image) for image in images.cpu().numpy()]))


def _with_bar(loader: EvalLoader, *, total: int, label: str, show: bool) -> Iterator[Batch]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not show, transient=True) as bar:
        task = bar.add_task(f"evaluating {label}", total=total)
        for batch in loader:
            yield batch
            bar.advance(task, len(batch.index))


def _contours(pred: Tensor, masks: Tensor, *, classes: ClassSet) -> np.ndarray:
    """Contour counts (N, K, 4) under the declared rules: an ignored class is void."""
    truth = masks.to(torch.uint8).cpu().numpy()
    guess = pred.to(torch.uint8).cpu().numpy()
    if classes.ignore_in_score:
        truth = np.where(np.isin(truth, classes.ignore_in_score), np.uint8(IGNORE_INDEX), truth)
    tolerance = boundary_tolerance_px(*truth.shape[1:])
    pairs = zip(guess, truth, strict=True)
    return np.stack(
        [boundary_counts(one, other, num_classes=classes.num_classes, tolerance_px=tolerance) for one, other in pairs]
    )


def _offer(keeper: ExampleKeeper, pack: Pack, batch: Batch, *, pred: Tensor, scores: np.ndarray) -> None:
    for row, index in enumerate(batch.index.tolist()):
        assert batch.masks is not None, "only labelled images are scored"
        truth, guess = (label[row].to(torch.uint8).cpu().numpy() for label in (batch.masks, pred))
        keeper.offer(pack.ids[index], float(scores[row]), pack.image(index), truth, guess)


def _write(result: Evaluation, folder: Path, *, classes: ClassSet, examples: Sequence[Example]) -> None:
    true, pred = prevalent(result.confusion, classes)
    write_arrays(
        folder / f"{result.split}.npz",
        {
            "ids": np.array(result.ids),
            "confusion": result.confusion,
            "boundary": result.boundary,
            "prevalent_true": true,
            "prevalent_pred": pred,
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
    write_text(folder / f"{result.split}.csv", _class_table(result))
    write_text(folder / f"{result.split}_images.csv", _image_table(result, classes, prevalent_classes=(true, pred)))
    write_json(folder / f"{result.split}.json", result.summary)


def _class_table(result: Evaluation) -> str:
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
    return _csv([["class", "in_mean", *heads, "true_pixels", "images"], *rows])


def _image_table(result: Evaluation, classes: ClassSet, *, prevalent_classes: tuple[np.ndarray, np.ndarray]) -> str:
    each = score(result.confusion, classes)
    names = [["" if k < 0 else classes.names[k] for k in labels] for labels in prevalent_classes]
    rows = zip(result.ids, each.miou, each.pixel_accuracy, *names, strict=True)
    return _csv([["id", "miou", "pixel_accuracy", "prevalent_true", "prevalent_pred"], *rows])


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    """Numbers with six digits, unknown ones empty; a text that a spreadsheet would run as a formula gets a quote."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[_cell(value) for value in row] for row in rows])
    return stream.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6f}"
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
