"""A card says where a data set is and what was decided about it, and says the same again once it is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segwright.data.card import RULES, Card, make_card, read_card, write_card
from segwright.data.sources import open_source
from segwright.errors import DataError, RecipeError
from segwright.files import read_yaml, write_yaml


@pytest.fixture
def photos(tmp_path) -> Path:
    """Four images with masks of three classes, and one mask that only a dropped image has."""
    for name in ("f1_a", "f1_b", "f2_a", "f2_b"):
        for kind in ("images", "masks"):
            path = tmp_path / "photos" / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.repeat(np.arange(3, dtype=np.uint8), 4)[None].repeat(8, axis=0)).save(path)
    return tmp_path / "photos"


TREE = {
    "source": "photos",
    "classes": ["sky", "soil", "rock"],
    "colors": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
    "ignore_in_loss": ["sky"],
    "ignore_in_score": ["rock", "sky"],
    "leave_out_of_mean": ["soil"],
    "never_predict": ["rock"],
    "groups": r"^(f\d)_",
    "dropped": {"f2_b": "lens cap on"},
}
NO_RULES: dict[str, list[str]] = {rule: [] for rule in RULES}


def card(photos: Path, **more: object) -> Path:
    path = photos.parent / "data.yaml"
    write_yaml(path, TREE | more)
    return path


def test_a_card_is_obeyed(photos):
    source = open_source(card(photos, split={"train": ["f1_a"], "val": ["f2_a"]}))
    assert source.root == photos
    assert [(one.id, one.split) for one in source.samples] == [("f1_a", "train"), ("f1_b", None), ("f2_a", "val")]
    assert source.dropped == {"f2_b": "lens cap on"}
    classes = source.classes
    assert classes.names == source.own_names == ("sky", "soil", "rock")
    assert classes.colors == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert (classes.ignore_in_loss, classes.ignore_in_score) == ((0,), (2, 0))
    assert (classes.leave_out_of_mean, classes.never_predict) == ((1,), (2,))
    assert source.groups == r"^(f\d)_"
    assert photos.parent / "data.yaml" in source.fingerprint_files()


def test_a_card_inside_a_folder_is_found_and_that_of_another_tool_is_not(photos):
    card(photos)
    assert open_source(photos.parent).dropped
    write_yaml(photos / "data.yaml", {"train": "images/train", "nc": 3, "names": ["a", "b", "c"]})
    assert open_source(photos).classes.names == ("class 0", "class 1", "class 2")


def test_values_and_void_of_a_card_and_what_the_caller_says_instead(photos):
    path = card(photos, classes=["soil", "sky"], colors=[], mask_values=[1, 0], void_values=[2, 255], **NO_RULES)
    source = open_source(path)
    assert source.read_mask(source.samples[0])[0, ::4].tolist() == [1, 0, 255]
    source = open_source(path, names=("a", "b", "c"), mask_values=(2, 1, 0), void_values=(9,))
    assert source.read_mask(source.samples[0])[0, ::4].tolist() == [2, 1, 0]
    assert source.classes.names == ("a", "b", "c")


def test_values_of_a_submission_are_those_of_the_card_or_of_the_masks(photos):
    assert open_source(card(photos)).values_to_submit == (0, 1, 2)
    path = card(photos, submission_values=[10, 0, 255])
    assert open_source(path).values_to_submit == (10, 0, 255)
    assert open_source(path, masks=False).submission_values == ()
    stored = {"mask_values": [0, 1, 2], "classes": ["a", "b", "c"], **NO_RULES}
    path = card(photos, submission_values=[10, 0, 255], **stored)
    # Of several values for one class the first counts, as in masks.
    assert open_source(
        path, names=("c", "rest"), colors=((1, 1, 1), (2, 2, 2)), mask_values=(2, (1, 0))
    ).values_to_submit == (255, 0)
    merged = card(photos, **NO_RULES, classes=["a", "b"], colors=[], mask_values=[0, [1, 2]], submission_values=[5, 6])
    assert open_source(merged).values_to_submit == (5, 6)
    # Nothing is known of two classes that the card takes for one.
    assert open_source(merged, names=("a", "b", "c"), mask_values=(0, 1, 2)).values_to_submit == (0, 1, 2)


def test_values_of_a_submission_from_masks_in_colours(photos):
    colors = [[0, 0, 0], [9, 0, 0], [0, 9, 0]]
    for path in (photos / "masks").iterdir():
        Image.fromarray(np.array(colors, dtype=np.uint8)[np.asarray(Image.open(path))]).save(path)
    assert open_source(card(photos, colors=colors)).values_to_submit is None
    assert open_source(card(photos, colors=colors, submission_values=[4, 5, 6])).values_to_submit == (4, 5, 6)


def test_an_image_without_a_mask_may_be_dropped_and_no_other(photos):
    (photos / "masks/f2_b.png").unlink()
    assert len(open_source(card(photos)).samples) == 3
    (photos / "masks/f1_b.png").unlink()
    with pytest.raises(DataError, match=r"1 image has no mask: images/f1_b.png"):
        open_source(card(photos))


def test_a_dropped_mask_is_never_looked_at(photos):
    (photos / "masks/f2_b.png").write_bytes(b"no picture")
    assert len(open_source(card(photos)).samples) == 3


def test_split_and_groups_may_be_files(photos):
    (photos.parent / "split.json").write_text(json.dumps({"train": ["f1_a"], "val": ["f2_a"]}))
    np.save(photos.parent / "groups.npy", np.arange(4))
    source = open_source(card(photos, split="split.json", groups="groups.npy"))
    assert source.split_file is not None
    assert source.split_file.resolve() == (photos.parent / "split.json").resolve()
    assert source.groups == str((photos.parent / "groups.npy").resolve())
    assert {one.split for one in source.samples} == {None}


def test_row_numbers_stand_for_array_ids(tmp_path):
    np.savez(
        tmp_path / "a.npz", images=np.zeros((3, 8, 8), np.uint8), masks=np.eye(8, dtype=np.uint8)[None].repeat(3, 0)
    )
    write_yaml(tmp_path / "data.yaml", {"source": "a.npz", "split": {"train": [0, "00002"], "val": [1]}})
    assert [one.split for one in open_source(tmp_path / "data.yaml").samples] == ["train", "val", "train"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"source": "fotos"}, "names 'fotos', which does not exist"),
        ({"split": "none.json"}, "names 'none.json', which does not exist"),
        ({"groups": "none.npz"}, "names 'none.npz', which does not exist"),
        ({"dropped": {"f3_a": "dark"}}, "drops unknown ids: f3_a. Did you mean"),
        ({"split": {"train": ["f1_a", "f9"]}}, "puts unknown id 'f9' into train"),
        ({"split": {"train": ["f1_a"], "val": ["f1_a"]}}, "puts 'f1_a' into train and val"),
        ({"ignore_in_scores": ["sky"]}, "unknown key 'ignore_in_scores'. Did you mean 'ignore_in_score'"),
        ({"colors": [[0, 0]]}, "'colors.0"),
        ({"colors": [[0, 0, 256]]}, "'colors.0.2' = 256: must be less than or equal to 255"),
        ({"classes": [], "colors": [], **NO_RULES, "mask_values": [0, 1, 1, 2]}, "value 1 stands for two classes"),
        ({"format": "zip"}, "'format' = 'zip'"),
        (
            {"submission_values": [10, 20]},
            r"'submission_values' = \[10, 20\]: there are 3 classes, so it needs as many",
        ),
        ({"submission_values": [7, 8, 7]}, r"'submission_values' = \[7, 8, 7\]: one value stands for two classes"),
        ({"submission_values": [0, 1, 2**31]}, "'submission_values.2' = 2147483648: must be less than"),
        (
            {"classes": [], "colors": [], **NO_RULES, "submission_values": [1, 2]},
            "gives 2 submission_values for 3 classes",
        ),
        ({"dropped": ["f1_a"]}, "'dropped'"),
        ({"split": {"holdout": ["f1_a"]}}, "holdout"),
    ],
)
def test_a_wrong_card_is_named(photos, more, message):
    with pytest.raises(DataError, match=message) as caught:
        open_source(card(photos, **more))
    assert "data.yaml" in str(caught.value)


def test_a_split_may_list_what_the_card_drops(photos):
    source = open_source(card(photos, split={"train": ["f1_a", "f2_b"], "val": ["f2_a"]}))
    assert {one.id: one.split for one in source.samples if one.split} == {"f1_a": "train", "f2_a": "val"}
    assert "f2_b" in source.dropped


def test_rules_name_classes_that_are_there(photos):
    with pytest.raises(RecipeError, match=r"no class 'skye'. Did you mean 'sky'"):
        open_source(card(photos, ignore_in_score=["skye"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "is no data card"),
        ("classes: [a]\n", "has no 'source'"),
        ("source: [\n", "is no YAML"),
        ("", "is no data card"),
    ],
)
def test_what_is_no_card(tmp_path, text, message):
    (tmp_path / "c.yml").write_text(text)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "c.yml")


def test_images_to_predict_need_no_class_names(photos):
    (photos / "classes.txt").write_text("sky\nsoil\nrock\n")
    source = open_source(card(photos, classes=[], colors=[]), masks=False)
    assert [one.mask for one in source.samples] == [None] * 3
    assert open_source(card(photos), masks=False).classes.ignore_in_score == (2, 0)


def test_a_source_writes_its_card(photos, tmp_path):
    first = open_source(card(photos, split={"train": ["f1_a"], "val": ["f2_a"]}, submission_values=[3, 2, 1]))
    out = tmp_path / "deep" / "copy.yaml"
    write_card(out, first.as_card())
    assert read_yaml(out)["source"] == "../photos"
    again = open_source(out)
    assert again.root.resolve() == photos.resolve()
    assert (again.samples, again.classes, again.coding) == (first.samples, first.classes, first.coding)
    assert (again.dropped, again.groups) == (first.dropped, first.groups)
    assert again.values_to_submit == (3, 2, 1)


def test_black_and_white_stays_so_in_a_written_card(tmp_path):
    for name in ("a.png", "a_mask.png"):
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / name)
    first = open_source(tmp_path)
    write_card(tmp_path / "card.yaml", first.as_card())
    again = open_source(tmp_path / "card.yaml")
    assert again.coding == first.coding
    assert again.coding.void == ()


def test_the_card_of_a_manifest_names_the_manifest(photos, tmp_path):
    (photos / "list.csv").write_text("image,mask,split\nimages/f1_a.png,masks/f1_a.png,train\n")
    write_card(tmp_path / "card.yaml", open_source(photos / "list.csv").as_card())
    assert read_card(tmp_path / "card.yaml").source == "photos/list.csv"
    assert [one.split for one in open_source(tmp_path / "card.yaml").samples] == ["train"]


def test_paths_are_made_relative_and_expressions_are_not(tmp_path):
    tree = {"source": str(tmp_path / "x"), "split": str(tmp_path / "s.json"), "groups": str(tmp_path / "g.npz")}
    write_card(tmp_path / "sub" / "c.yaml", tree)
    told = read_card(tmp_path / "sub" / "c.yaml")
    assert (told.source, told.split, told.groups) == ("../x", "../s.json", "../g.npz")
    write_card(tmp_path / "c.yaml", {"source": "x", "groups": r"/(frame\d+)_"})
    assert read_card(tmp_path / "c.yaml").groups == r"/(frame\d+)_"


WORDS = st.text(st.characters(codec="utf-8"), max_size=9)
NAMES = st.lists(WORDS.filter(bool), max_size=5, unique=True)


@given(
    classes=NAMES,
    values=st.lists(st.integers(0, 65535), max_size=5),
    void=st.lists(st.integers(0, 255), max_size=3),
    colors=st.lists(st.tuples(*[st.integers(0, 255)] * 3), max_size=4),
    split=st.none() | st.dictionaries(st.sampled_from(["train", "val", "test"]), st.lists(WORDS | st.integers(0, 99))),
    dropped=st.dictionaries(WORDS, WORDS, max_size=3),
)
def test_every_card_comes_back_as_it_was(tmp_path_factory, classes, values, void, colors, split, dropped):
    tree = {
        "source": "photos", "format": "folder", "classes": classes, "mask_values": values, "void_values": void,
        "colors": colors, "ignore_in_score": classes[:1], "never_predict": classes[1:], "split": split,
        "dropped": dropped,
    }  # fmt: skip
    path = tmp_path_factory.mktemp("card") / "data.yaml"
    write_card(path, tree)
    assert read_card(path) == make_card(tree)
    assert isinstance(read_card(path), Card)


def test_what_is_no_card_is_not_written(tmp_path):
    with pytest.raises(DataError, match="has no 'source'"):
        write_card(tmp_path / "c.yaml", {"classes": ["a"]})
    assert not (tmp_path / "c.yaml").exists()
