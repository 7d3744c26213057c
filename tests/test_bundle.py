"""Bundles come back as they were saved, replace only bundles, and a damaged one is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from segwright.bundle import CARD_FILE, INDEX_FILE, WEIGHTS_FILE, load_bundle, note_score, save_bundle
from segwright.errors import OutputError, RunError, WeightsError
from segwright.files import read_json, write_json
from segwright.models import ModelSpec, SegmentationModel, build_model
from segwright.training.folder import _score_of
from segwright.types import ClassSet

CLASSES = ClassSet(("sky", "soil", "rock"), ((0, 0, 255), (200, 100, 0), (90, 90, 90)), never_predict=(0,))
INFO = {"score": {"miou": 0.71, "interval": [0.68, 0.74]}, "licences": ["CC0"], "calibration": None}


def small_model(*, seed: int = 0) -> SegmentationModel:
    torch.manual_seed(seed)
    return build_model(
        ModelSpec(
            name="unet",
            in_channels=3,
            num_classes=3,
            encoder=None,
            arguments={"depth": 2, "width": 4},
            mean=(0.4, 0.5, 0.6),
            std=(0.2, 0.2, 0.3),
            scale=255.0,
            never_predict=(0,),
        )
    ).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 21, 34), dtype=torch.uint8)


@torch.inference_mode()
def test_round_trip_is_exact(tmp_path: Path, images: torch.Tensor) -> None:
    model = small_model()
    model.to(memory_format=torch.channels_last)
    save_bundle(tmp_path / "bundle", model, classes=CLASSES, info=INFO)
    for path in (tmp_path, tmp_path / "bundle"):
        bundle = load_bundle(path)
        assert torch.equal(bundle.model(images), model(images))
        assert bundle.classes == CLASSES
        assert bundle.info == INFO
        assert bundle.model.spec == model.spec
        assert not bundle.model.training


def test_card_tells_classes_and_score(tmp_path: Path) -> None:
    save_bundle(tmp_path / "b", small_model(), classes=CLASSES, info=INFO)
    text = (tmp_path / "b" / CARD_FILE).read_text()
    assert "| 2 | rock | (90, 90, 90) |" in text
    assert "Never predicted: sky" in text
    assert "miou: 0.71" in text


def test_a_score_is_told_afterwards(tmp_path: Path) -> None:
    info = {**INFO, "score": {"name": "miou", "split": "val", "value": 0.69, "interval": None}}
    save_bundle(tmp_path / "run" / "bundle", small_model(), classes=CLASSES, info=info)
    before = load_bundle(tmp_path / "run")
    score = {"name": "miou", "split": "val", "value": 0.7, "interval": [0.65, 0.74]}
    for _ in range(2):
        note_score(tmp_path / "run", score)
        assert load_bundle(tmp_path / "run").info == {**before.info, "score": {**score, "in_training": 0.69}}
    assert "  - interval: 0.65, 0.74" in (tmp_path / "run" / "bundle" / "card.md").read_text()
    with pytest.raises(RunError, match="holds no bundle"):
        note_score(tmp_path, {"value": 0.7})


@torch.inference_mode()
def test_a_newer_bundle_replaces_an_older_one(tmp_path: Path, images: torch.Tensor) -> None:
    first, second = small_model(), small_model(seed=1)
    save_bundle(tmp_path / "b", first, classes=CLASSES, info=INFO)
    save_bundle(tmp_path / "b", second, classes=CLASSES, info=INFO)
    assert torch.equal(load_bundle(tmp_path / "b").model(images), second(images))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_bundle_survives_a_cut_between_the_renames(tmp_path: Path) -> None:
    save_bundle(tmp_path / "bundle", small_model(), classes=CLASSES, info=INFO)
    (tmp_path / "bundle").rename(tmp_path / ".bundle.old")
    assert load_bundle(tmp_path).info == INFO
    assert load_bundle(tmp_path / "bundle").info == INFO


def test_a_folder_of_the_user_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"mine")
    with pytest.raises(OutputError, match="no bundle"):
        save_bundle(tmp_path / "photos", small_model(), classes=CLASSES, info=INFO)
    assert (tmp_path / "photos" / "a.jpg").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is missing"):
        load_bundle(tmp_path / "nowhere")
    with pytest.raises(RunError, match="holds no bundle"):
        load_bundle(tmp_path)


def test_damage_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    save_bundle(folder, small_model(), classes=CLASSES, info=INFO)
    weights = bytearray((folder / WEIGHTS_FILE).read_bytes())
    weights[-5] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(weights)
    with pytest.raises(WeightsError, match="not the file that the bundle was written with"):
        load_bundle(folder)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(WeightsError, match="is missing"):
        load_bundle(folder)


def test_an_index_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    save_bundle(folder, small_model(), classes=CLASSES, info=INFO)
    tree = read_json(folder / INDEX_FILE)
    write_json(folder / INDEX_FILE, {**tree, "format": 99})
    with pytest.raises(RunError, match="Upgrade segwright"):
        load_bundle(folder)
    write_json(folder / INDEX_FILE, {key: value for key, value in tree.items() if key != "classes"})
    with pytest.raises(RunError, match="damaged"):
        load_bundle(folder)
    write_json(folder / INDEX_FILE, ["something else"])
    with pytest.raises(RunError, match="no segwright bundle"):
        load_bundle(folder)


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    save_bundle(folder, small_model(), classes=CLASSES, info=INFO)
    tree = json.loads((folder / INDEX_FILE).read_text())
    tree["architecture"]["arguments"]["width"] = 6
    write_json(folder / INDEX_FILE, tree)
    with pytest.raises(WeightsError, match="has shape"):
        load_bundle(folder)


def test_nothing_is_pickled(tmp_path: Path) -> None:
    save_bundle(tmp_path / "b", small_model(), classes=CLASSES, info={"mean": [float(np.float64(0.5))]})
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == sorted([INDEX_FILE, WEIGHTS_FILE, CARD_FILE])
    assert (tmp_path / "b" / WEIGHTS_FILE).read_bytes()[8:9] == b"{"  # safetensors: a length, then JSON


def test_what_training_counted_is_what_later_epochs_are_compared_with(tmp_path: Path) -> None:
    info = {**INFO, "score": {"name": "miou", "split": "val", "value": 0.6, "interval": None}}
    save_bundle(tmp_path / "b", small_model(), classes=CLASSES, info=info)
    assert _score_of(tmp_path / "b") == 0.6
    note_score(tmp_path / "b", {"name": "miou", "split": "val", "value": 0.61, "interval": None})
    assert _score_of(tmp_path / "b") == 0.6
