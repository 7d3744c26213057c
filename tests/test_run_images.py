"""The images of a run and of other data, and how scores of those are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright import run_images
from segwright.data.card import write_card
from segwright.errors import MaskError, RunError
from segwright.files import write_json
from segwright.recipe import Recipe, write_recipe


def test_scores_of_other_data_never_stand_for_a_side(tmp_path: Path) -> None:
    for name in ("val", "other"):
        (tmp_path / name).mkdir()
    assert run_images.name_of_scores(tmp_path / "val", split=None) == "data-val"
    assert run_images.name_of_scores(tmp_path / "other", split=None) == "other"
    assert run_images.name_of_scores(tmp_path / "other", split="test") == "other-test"
    assert run_images.name_of_scores(tmp_path / "val", split="test") == "data-val-test"
    assert run_images.name_of_scores(tmp_path / "val-horizontal", split=None) == "data-val-horizontal"
    assert run_images.name_of_scores(tmp_path / "valley-1", split=None) == "valley-1"


def test_a_leak_is_seen_by_the_pictures_or_else_by_their_names(tmp_path: Path) -> None:
    judged, learner = tmp_path / "judged", tmp_path / "learner"
    for run, split in ((judged, {"train": ["a"], "val": ["b"]}), (learner, {"train": ["b", "c"], "val": ["a"]})):
        write_json(run / "split.json", split)
        write_recipe(run / "recipe.yaml", Recipe())
    with pytest.raises(RunError, match=r"has learnt from 1 images that .*judged is judged by, such as 'b'"):
        run_images.refuse_leak(learner, judged, sides=("val",))
    # Equal names of other pictures are no leak, other names of equal pictures are.
    facts = {"a": ["1", "m", "train"], "b": ["2", "m", "val"], "d": ["3", "", "val"]}
    write_json(judged / "images.json", facts)
    write_json(learner / "images.json", {"b": ["4", "m", "train"], "c": ["3", "m", "train"], "a": ["2", "m", "val"]})
    run_images.refuse_leak(learner, judged, sides=("val",))
    write_json(learner / "images.json", {"b": ["4", "m", "train"], "c": ["2", "m", "train"]})
    with pytest.raises(RunError, match=r"such as 'b'.*one split"):
        run_images.refuse_leak(learner, judged, sides=("val",))
    run_images.refuse_leak(learner, judged, sides=("test",))


def test_scores_of_oddly_named_data(tmp_path: Path) -> None:
    assert run_images.name_of_scores(tmp_path / "val", split=None) == "data-val"
    assert run_images.name_of_scores(tmp_path / "sky_images", split=None) == "sky-images"  # 'sky' has a sky_images.csv


def test_other_masks_with_soft_edges_are_read_as_the_run_read_its_own(tmp_path: Path) -> None:
    soft = Image.fromarray(np.array([[0, 90, 160, 255]] * 4, dtype=np.uint8))
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        soft.save(tmp_path / "set" / folder / "a.png")
    tree = {"source": str(tmp_path / "set"), "classes": ["a", "b"], "mask_values": [0, 255], "void_values": []}
    write_card(tmp_path / "hard" / "data.yaml", tree)
    with pytest.raises(MaskError, match="belongs to no class"):
        run_images.other_images(tmp_path / "hard", tmp_path / "set", split=None, progress=False)
    write_card(tmp_path / "soft" / "data.yaml", {**tree, "nearest": True})
    images = run_images.other_images(tmp_path / "soft", tmp_path / "set", split=None, progress=False)
    assert images.pack.mask(0).tolist() == [[0, 0, 1, 1]] * 4
