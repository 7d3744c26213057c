"""A bundle: a trained model and all it takes to use it, as a folder without pickle.

    bundle/  model.safetensors   the weights (https://github.com/huggingface/safetensors)
             bundle.json         architecture and arguments, classes and colours, normalisation, digest of the weights,
                                 and `info`
             card.md             the same for people (Mitchell et al. 2019, Model Cards, https://arxiv.org/abs/1810.03993)

`info` holds what came out of training, as plain JSON: score (with interval), definition, calibration, versions,
licences, trained_on, and `input`: `working_size_px`, the longer side that images are scaled down to, and `tones`, the
mean quantile function of the training images (C, 256), to which new images can be matched.

A bundle is written under a temporary name and renamed. Where it replaces an older one, that one is first renamed to
`.<name>.old`, which is read should a power cut fall between the two renames.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from segwright.errors import OutputError, RunError, SegwrightError, WeightsError, one_line
from segwright.files import digest, read_json, sync_folder, write_json, write_text
from segwright.models import ModelSpec, SegmentationModel, build_model
from segwright.types import ClassSet

FORMAT = 1
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "bundle.json"
CARD_FILE = "card.md"


@dataclass(frozen=True)
class Bundle:
    """A model ready for use.

    Attributes:
        model: in evaluation mode, on the device that was asked for.
        classes: names, colours and rules, by label.
        info: what is known about the model, as plain JSON.
    """

    model: SegmentationModel
    classes: ClassSet
    info: dict[str, Any]


def save_bundle(folder: Path, model: SegmentationModel, *, classes: ClassSet, info: Mapping[str, Any]) -> None:
    """Write a bundle, replacing an older bundle at the same place.

    Raises:
        OutputError: something that is no bundle stands there, or the disk is full.
    """
    if folder.exists() and not (folder / INDEX_FILE).is_file():
        raise OutputError("stands there and is no bundle", mend="choose another folder", file=folder)
    fresh = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
        fresh.chmod(0o755)
        _write_weights(fresh / WEIGHTS_FILE, model)
        tree = {
            "format": FORMAT,
            "segwright": importlib.metadata.version("segwright"),
            "architecture": model.spec.as_dict(),
            "classes": dataclasses.asdict(classes),
            "weights_digest": digest(fresh / WEIGHTS_FILE),
            "info": dict(info),
        }
        write_json(fresh / INDEX_FILE, tree)
        write_text(fresh / CARD_FILE, card(model.spec, classes=classes, info=info))
        _swap(fresh, folder)
    except (OSError, SafetensorError) as error:
        # safetensors words a full disk itself.
        reason = getattr(error, "strerror", None) or error
        mend = "free some space or choose another folder"
        raise OutputError(f"cannot be written ({reason})", mend=mend, file=folder) from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def note_score(folder: Path, score: Mapping[str, Any]) -> None:
    """Tell a bundle and its card what its model scored, once that is known better.

    What training itself counted, at its working size and in its number format, stays as `in_training`: only with that
    can later epochs be compared.

    Args:
        folder: of the bundle, or of the run around it.
        score: `name`, `split`, `value`, and `interval` as its two ends, or None.

    Raises:
        RunError: there is no bundle.
        OutputError: it cannot be written.
    """
    folder = find_bundle(folder)
    tree = read_json(folder / INDEX_FILE)
    before = tree["info"]["score"] or {}
    counted = before.get("in_training", before.get("value"))
    tree["info"] = {**tree["info"], "score": {**score, "in_training": counted}}
    spec, classes = ModelSpec.from_dict(tree["architecture"]), ClassSet.from_dict(tree["classes"])
    write_json(folder / INDEX_FILE, tree)
    write_text(folder / CARD_FILE, card(spec, classes=classes, info=tree["info"]))


def load_bundle(path: Path, *, device: str | torch.device = "cpu") -> Bundle:
    """Read a bundle from its folder, or from the run folder that holds it.

    Raises:
        RunError: there is no bundle, it is damaged, or a newer segwright wrote it.
        WeightsError: the weights are not those that the bundle names, or do not fit the architecture.
    """
    folder = find_bundle(path)
    tree = read_json(folder / INDEX_FILE)
    if not isinstance(tree, dict) or not isinstance(tree.get("format"), int):
        raise RunError(
            "is no segwright bundle", mend="give the folder of a bundle or of a run", file=folder / INDEX_FILE
        )
    if tree["format"] > FORMAT:
        mend = "upgrade segwright"
        raise RunError(f"has format {tree['format']}; this segwright reads up to {FORMAT}", mend=mend, file=folder)
    try:
        classes = ClassSet.from_dict(tree["classes"])
        spec = ModelSpec.from_dict(tree["architecture"])
        expected, info = str(tree["weights_digest"]), dict(tree["info"])
        (info.get("input") or {}).get("working_size_px")
        if spec.num_classes != classes.num_classes:
            raise ValueError(f"{classes.num_classes} classes for a model of {spec.num_classes}")
        model = build_model(spec)
    except SegwrightError as error:
        mend = "copy the bundle again, or use the segwright that card.md names"
        raise RunError(f"describes no model ({error.problem})", mend=mend, file=folder / INDEX_FILE) from None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, MemoryError) as error:
        what = {KeyError: "it lacks ", TypeError: "a value of another kind: "}.get(type(error), "")
        reason = f"{what}{error}"
        raise RunError(f"is damaged ({reason})", mend="copy the bundle again", file=folder / INDEX_FILE) from None
    _read_weights(folder / WEIGHTS_FILE, model, expected=expected)
    return Bundle(model=model.to(device).eval(), classes=classes, info=info)


def find_bundle(path: Path) -> Path:
    """The bundle's folder, given itself or the run folder around it.

    Raises:
        RunError: there is none.
    """
    for folder in (path, path.parent / f".{path.name}.old", path / "bundle", path / ".bundle.old"):
        if (folder / INDEX_FILE).is_file():
            return folder
    if not path.exists():
        raise RunError("is missing", mend="give the folder of a bundle or of a run", file=path)
    raise RunError("holds no bundle", mend="give the folder of a run whose training has scored once", file=path)


def card(spec: ModelSpec, *, classes: ClassSet, info: Mapping[str, Any]) -> str:
    """The model card in Markdown."""
    network = spec.name if spec.encoder is None else f"{spec.name} with encoder {spec.encoder}"
    rules = {
        "Left out of the loss": classes.ignore_in_loss,
        "True pixels dropped before scoring": classes.ignore_in_score,
        "Left out of the mean": classes.leave_out_of_mean,
        "Never predicted": classes.never_predict,
    }
    lines = [
        f"# {network}, {classes.num_classes} classes",
        "",
        f"Input: {spec.in_channels} channel{'s' * (spec.in_channels > 1)}, divided by {spec.scale:g}, "
        f"mean {_numbers(spec.mean)}, standard deviation {_numbers(spec.std)}; any size.",
        "",
        "| label | class | colour |",
        "|---|---|---|",
        *(f"| {k} | {_plain(name)} | {classes.colors[k]} |" for k, name in enumerate(classes.names)),
        "",
        *(f"- {rule}: {', '.join(_plain(classes.names[k]) for k in one)}" for rule, one in rules.items() if one),
        "",
        "## What is known",
        "",
        *_bullets(info),
        "",
        "## Use",
        "",
        "    import segwright",
        '    prediction = segwright.load("path/to/this/folder").predict("photo.jpg")',
        "",
    ]
    return "\n".join(lines)


def _bullets(tree: Mapping[str, Any], depth: int = 0) -> list[str]:
    lines = []
    for key, value in tree.items():
        head = f"{'  ' * depth}- {key.replace('_', ' ')}:"
        if isinstance(value, Mapping):
            lines += [head, *_bullets(value, depth + 1)]
        elif isinstance(value, (list, tuple)):
            lines.append(f"{head} {_listed(value)}")
        else:
            lines.append(f"{head} {'not known' if value is None else _plain(value)}")
    return lines


def _listed(values: Sequence[Any]) -> str:
    """Lists within a list are tables for programs; people are told their size."""
    if values and all(isinstance(one, (list, tuple)) for one in values):
        return f"{len(values)} x {len(values[0])} values, in bundle.json"
    return ", ".join(_plain(item) for item in values) or "none"


def _plain(value: object) -> str:
    """A value as Markdown shows it: HTML and columns in the name of a class or a folder stay what they are."""
    return escape(one_line(str(value)), quote=False).replace("|", "\\|")


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _write_weights(path: Path, model: SegmentationModel) -> None:
    """Plain row-major copies: safetensors takes neither shared storage nor channels-last tensors."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    save_file(state, path, metadata={"format": "pt"})
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _read_weights(path: Path, model: SegmentationModel, *, expected: str) -> None:
    if not path.is_file():
        raise WeightsError("is missing", mend="copy the bundle again, with all its files", file=path)
    if digest(path) != expected:
        raise WeightsError("is not the file that the bundle was written with", mend="copy the bundle again", file=path)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"is damaged ({error})", mend="copy the bundle again", file=path) from None
    fault = _first_difference(state, model.state_dict())
    if fault:
        raise WeightsError(fault, mend="use the segwright and library versions that card.md names", file=path)
    model.load_state_dict(state, strict=True)


def _first_difference(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    for name, value in wanted.items():
        if name not in state:
            return f"lacks tensor '{name}', which the architecture has"
        if state[name].shape != value.shape:
            return f"tensor '{name}' has shape {tuple(state[name].shape)}, the architecture has {tuple(value.shape)}"
    extra = sorted(set(state) - set(wanted))
    return f"holds tensor '{extra[0]}', which the architecture has not" if extra else ""


def _swap(fresh: Path, folder: Path) -> None:
    old = folder.parent / f".{folder.name}.old"
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    fresh.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
