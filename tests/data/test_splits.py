"""Splits keep groups together, shares and classes in proportion, and read what others wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.data.splits import check_split, find_groups, indices_of, make_split, read_split, write_split
from segwright.errors import DataError, SplitError
from segwright.types import SPLIT_NAMES


def names(count: int) -> list[str]:
    return [f"{i:05d}" for i in range(count)]


@pytest.fixture
def presence() -> np.ndarray:
    """400 images: class 0 everywhere, class 3 in 3 % of them."""
    return np.random.default_rng(5).random((400, 4)) < np.array([1.0, 0.5, 0.2, 0.03])


@pytest.mark.parametrize("kind", ["random", "stratified", "auto"])
@pytest.mark.parametrize(("val", "test"), [(0.2, 0.0), (0.1, 0.3), (0.5, 0.25)])
def test_shares_are_kept(presence, kind, val, test):
    split = make_split(names(400), kind=kind, presence=presence, val=val, test=test)
    assert list(split) == names(400)
    sides = list(split.values())
    assert abs(sides.count("val") - 400 * val) <= 2
    assert abs(sides.count("test") - 400 * test) <= 2


def test_strata_hold_each_class_in_proportion(presence):
    for seed in range(5):
        split = make_split(names(400), kind="stratified", presence=presence, val=0.25, seed=seed)
        val = presence[indices_of(split, names(400), "val")].sum(axis=0)
        np.testing.assert_allclose(val, presence.sum(axis=0) / 4, atol=2)


def test_strata_are_nearer_than_chance(presence):
    def error(kind, seed):
        split = make_split(names(400), kind=kind, presence=presence, seed=seed)
        val = presence[indices_of(split, names(400), "val")].sum(axis=0)
        return np.abs(val - presence.sum(axis=0) * 0.2).sum()

    assert sum(error("stratified", seed) for seed in range(8)) < 0.5 * sum(error("random", seed) for seed in range(8))


def test_the_seed_decides(presence):
    def made(seed):
        return make_split(names(400), kind="stratified", presence=presence, seed=seed)

    assert made(1) == made(1) != made(2)


@given(
    groups=st.lists(st.sampled_from(["a", "b", "c", "d", "e", None]), min_size=6, max_size=60),
    kind=st.sampled_from(["auto", "random", "stratified", "grouped", "kfold"]),
    test=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 99),
)
def test_no_group_stands_on_two_sides(groups, kind, test, seed):
    ids = names(len(groups))
    presence = np.random.default_rng(seed).random((len(ids), 3)) < 0.4
    units = len({group for group in groups if group}) + groups.count(None)
    if units < 6 or (kind == "grouped" and not any(groups)):
        return
    split = make_split(ids, kind=kind, groups=groups, presence=presence, val=0.3, test=test, folds=3, seed=seed)
    assert list(split) == ids
    assert set(split.values()) == ({"train", "val", "test"} if test else {"train", "val"})
    for group in set(groups) - {None}:
        assert len({split[name] for name, own in zip(ids, groups, strict=True) if own == group}) == 1


def test_groups_are_dealt_by_size_and_class():
    rng = np.random.default_rng(0)
    groups = [f"scene{i}" for i in rng.integers(0, 40, 400)]
    presence = np.zeros((400, 2), dtype=bool)
    presence[[i for i, group in enumerate(groups) if int(group[5:]) < 10], 0] = True
    split = make_split(names(400), kind="grouped", groups=groups, presence=presence, val=0.25)
    val = indices_of(split, names(400), "val")
    assert abs(len(val) - 100) <= 12
    assert abs(presence[val, 0].sum() - presence[:, 0].sum() / 4) <= 12


@given(count=st.integers(6, 50), folds=st.integers(2, 5), seed=st.integers(0, 50), test=st.sampled_from([0.0, 0.2]))
def test_folds_cover_everything_once(count, folds, seed, test):
    splits = [
        make_split(names(count), kind="kfold", folds=folds, fold=fold, test=test, seed=seed) for fold in range(folds)
    ] if count * (1 - test) >= folds + 1 else []  # fmt: skip
    for name in names(count) if splits else []:
        sides = [split[name] for split in splits]
        assert sides.count("val") == 1 or set(sides) == {"test"}
    sizes = [list(split.values()).count("val") for split in splits] or [0]
    assert max(sizes) - min(sizes) <= 1


def test_every_side_gets_an_image():
    for count in (3, 4, 7):
        split = make_split(names(count), kind="random", val=0.05, test=0.05)
        assert set(split.values()) == set(SPLIT_NAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": names(1)}, "cannot fill 2 sides"),
        ({"ids": names(9), "groups": ["x"] * 9}, "cannot fill 2 sides"),
        ({"ids": names(9), "kind": "grouped"}, "no group is known"),
        ({"ids": names(9), "kind": "given"}, "no train side"),
        ({"ids": names(9), "val": 0.0}, "above 0"),
        ({"ids": names(9), "val": 0.6, "test": 0.4}, "less than 1"),
        ({"ids": names(9), "kind": "kfold", "folds": 3, "fold": 3}, "fold 3 of 3"),
        ({"ids": names(4), "kind": "kfold", "folds": 5}, "cannot fill 5 sides"),
        ({"ids": names(2), "given": ["train", "val"], "groups": ["x", "x"]}, "group 'x' stands on two sides"),
    ],
)
def test_what_cannot_be_split_is_said(arguments, message):
    with pytest.raises(SplitError, match=message):
        make_split(arguments.pop("ids"), **arguments)


def test_the_split_of_the_source_is_kept():
    split = make_split(names(4), given=["train", "val", "test", None])
    assert split == {"00000": "train", "00001": "val", "00002": "test"}


@pytest.mark.parametrize("kind", ["auto", "random", "stratified", "kfold"])
def test_what_the_source_calls_test_stays_test(kind):
    split = make_split(names(12), kind=kind, given=["test"] * 4 + [None] * 8, val=0.25, test=0.5, folds=4)
    assert [name for name, side in split.items() if side == "test"] == names(4)
    assert list(split.values()).count("val") == 2


def test_a_missing_val_side_is_taken_from_train():
    split = make_split(names(12), given=["train"] * 10 + ["test"] * 2, val=0.2)
    assert list(split.values()).count("val") == 2
    assert split["00010"] == split["00011"] == "test"


def test_a_split_is_written_and_read_back(tmp_path):
    split = make_split(names(30), kind="random", test=0.2, seed=3)
    write_split(tmp_path / "split.json", split)
    assert read_split(tmp_path / "split.json", names(30)) == split


@pytest.mark.parametrize(
    ("tree", "ids"),
    [
        ({"train": [0, 2], "val": [1]}, names(4)),
        ({"train": ["a/x", "a/y.jpg"], "valid": ["z.png"]}, ["a/x", "z", "a/y"]),
        ({"Training": ["x", "y"], "dev": ["./b/z"], "note": "by hand"}, ["a/x", "b/z", "a/y"]),
    ],
)
def test_rows_stems_endings_and_synonyms_are_understood(tmp_path, tree, ids):
    (tmp_path / "s.json").write_text(json.dumps(tree))
    assert read_split(tmp_path / "s.json", ids) == {ids[0]: "train", ids[1]: "val", ids[2]: "train"}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1, 2], "is no split"),
        ({"seed": 3}, "is no split"),
        ({"train": ["a/x"], "val": ["nobody"]}, "'nobody' is no id"),
        ({"train": ["a/x"], "val": [7]}, "7 is no id"),
        ({"train": ["a/x"], "val": [True]}, "True is no id"),
        ({"train": ["a/x"], "val": ["x"]}, "may be a/x or b/x"),
        ({"train": ["a/x"], "val": ["a/x.png"]}, "stands in train and in val"),
        ({"train": ["a/x"], "holdout": ["b/x"]}, "'holdout'"),
        ({"train": ["a/x"], "val": []}, "val side is empty"),
    ],
)
def test_wrong_split_files_are_named(tmp_path, tree, message):
    (tmp_path / "s.json").write_text(json.dumps(tree))
    with pytest.raises(SplitError, match=message):
        read_split(tmp_path / "s.json", ["a/x", "b/x"])


def test_a_split_file_that_is_missing(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_split(tmp_path / "none.json", ["a"])


def test_groups_come_from_a_regular_expression():
    ids = ["seq1/0001", "seq1/0002", "seq2/0001"]
    assert find_groups(ids, r"^(seq\d+)/") == ("seq1", "seq1", "seq2")
    assert find_groups(ids, r"seq\d+") == ("seq1", "seq1", "seq2")
    with pytest.raises(SplitError, match="does not match id 'seq2/0001'"):
        find_groups(ids, "(seq1)")
    with pytest.raises(SplitError, match="no regular expression"):
        find_groups(ids, "(seq")


def test_groups_come_from_a_file(tmp_path: Path):
    ids = [*names(3), "test/00000"]
    np.save(tmp_path / "g.npy", np.array([4, 4, 9]))
    np.savez(tmp_path / "g.npz", groups=np.array(["a", "b", "b", "c"]))
    (tmp_path / "g.json").write_text(json.dumps({"00000": 1, "00002.png": 2}))
    assert find_groups(ids, str(tmp_path / "g.npy")) == ("4", "4", "9", None)
    assert find_groups(ids, str(tmp_path / "g.npz")) == ("a", "b", "b", "c")
    assert find_groups(ids, str(tmp_path / "g.json")) == ("1", None, "2", None)
    with pytest.raises(SplitError, match="3 groups for 2 images"):
        find_groups(["x", "y"], str(tmp_path / "g.npy"))


def test_a_leaking_split_is_refused():
    with pytest.raises(SplitError, match="'a' in train, 'b' in val"):
        check_split({"a": "train", "b": "val"}, ["a", "b"], groups=["g", "g"])
