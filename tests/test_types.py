from __future__ import annotations

import pytest

from segwright.errors import MissingExtraError, RecipeError, SegwrightError, brief, nearest
from segwright.types import ClassSet

COLORS = ((0, 0, 0), (10, 0, 0), (0, 10, 0))


def test_scored_classes_leave_both_kinds_out() -> None:
    classes = ClassSet(("a", "b", "c"), COLORS, ignore_in_score=(0,), leave_out_of_mean=(2,))
    assert classes.scored == (1,)
    assert classes.num_classes == 3
    assert classes.palette().tolist() == [[0, 0, 0], [10, 0, 0], [0, 10, 0]]


def test_an_unknown_class_is_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'b_rock'"):
        ClassSet(("sand", "b_rock", "c"), COLORS).index("brock")


@pytest.mark.parametrize(
    ("names", "said"),
    [(("a", "a", "b"), "twice"), (("a", "b"), "colours"), (("a", " ", "c"), "shown"), (("a", "b\nc", "d"), r"'b\\nc'"),
     (("a", "b\u2028c", "d"), "shown")],
)  # fmt: skip
def test_impossible_class_sets_are_refused(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        ClassSet(names, COLORS)


def test_names_of_classes_may_hold_what_people_write() -> None:
    names = ("<b>rock</b>, wet", "=sand|soil", "नमी \u200d ü")
    assert ClassSet(names, COLORS).names == names


def test_a_message_is_one_line_whatever_a_file_is_called() -> None:
    error = SegwrightError("holds\tthree\x1b[2J things", mend="look", file="a\nb\udcff\u202e.png")
    assert str(error) == r"a\nb\xff\u202e.png: holds\tthree\x1b[2J things. Look."


def test_values_in_messages_are_short() -> None:
    tree: object = "x"
    for _ in range(30):
        tree = [tree] * 9
    assert len(brief(tree)) == 120
    assert len(brief("y" * 10_000)) < 100
    assert brief(int("9" * 4000) * 10**4000) == "a int"
    assert brief({"a": 1}) == "{'a': 1}"


def test_a_message_names_file_problem_and_mend() -> None:
    error = SegwrightError("is empty", mend="copy it again", file="a.png")
    assert str(error) == "a.png: is empty. Copy it again."
    missing = str(MissingExtraError("rasterio", extra="geo"))
    assert "pip install 'segwright[geo]'" in missing
    assert "pip install '.[geo]'" in missing
    assert nearest("zzz", ["unet", "fpn"]) == "There are: fpn, unet"
