from __future__ import annotations

import pytest

from segwright.errors import MissingExtraError, RecipeError, SegwrightError, nearest
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


@pytest.mark.parametrize(("names", "said"), [(("a", "a", "b"), "twice"), (("a", "b"), "colours")])
def test_impossible_class_sets_are_refused(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        ClassSet(names, COLORS)


def test_a_message_names_file_problem_and_mend() -> None:
    error = SegwrightError("is empty", mend="copy it again", file="a.png")
    assert str(error) == "a.png: is empty. Copy it again."
    assert "pip install 'segwright[geo]'" in str(MissingExtraError("rasterio", extra="geo"))
    assert nearest("zzz", ["unet", "fpn"]) == "There are: fpn, unet"
