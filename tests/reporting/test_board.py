"""Leaderboards and comparisons as texts and pages: complete, escaped, and self-contained."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from segwright.errors import OutputError
from segwright.evaluation.hierarchical import Gap, Needed
from segwright.evaluation.statistics import Comparison, Interval
from segwright.reporting import board_page, board_tables, comparison_page
from segwright.studies.compare import Compared, RunComparison, Side
from segwright.studies.leaderboard import Difference, Leaderboard, Row
from segwright.studies.results import Cost
from segwright.types import ClassSet

CLASSES = ClassSet(("sky", "rock & <b>"), ((0, 0, 0), (200, 90, 0)))
NOTHING = Interval(math.nan, math.nan, math.nan)


def difference(verdict: str, *, p: float, needed: Needed | None = None) -> Difference:
    gap = Gap(Comparison(Interval(-0.02, -0.05, 0.01), p), 1e-4, 1e-4, units=60, seeds=3)
    return Difference("dice_<i>", gap, p, verdict, needed)


TABLE = Leaderboard(
    "losses & more", "Which <loss>?", "val", "declared", CLASSES, 60, 60, None,
    (
        Row("dice_<i>", Interval(0.62, 0.58, 0.66), 0.01, 3, (0.7, 0.54), Cost(8.0, 2_000_000, 100.0),
            figure={"miou": 0.5885}),
        Row("a|b", Interval(0.60, 0.56, 0.64), 0.02, 3, (0.7, math.nan), Cost(4.0, 1_000_000, 200.0),
            to_best=difference("too close to call", p=0.2, needed=Needed(1234, 9))),
        Row("late", Interval(0.5, 0.4, 0.55), 0.0, 3, (0.6, 0.4), Cost(9.0, 3_000_000, 50.0),
            to_best=difference("worse", p=0.0001)),
        Row("broken", NOTHING, math.nan, 0, (), Cost(None, None, None), note="1 failed: =cmd()"),
    ),
    runs=9,
)  # fmt: skip


def test_csv_holds_every_number_and_no_formula(tmp_path: Path) -> None:
    board_tables.write_tables(TABLE, tmp_path)
    with (tmp_path / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["row"] for row in rows] == ["dice_<i>", "a|b", "late", "broken"]
    assert float(rows[1]["miou"]) == 0.6
    assert float(rows[1]["to_best p_holm"]) == 0.2
    assert rows[0]["paper miou"] == "0.588500"
    assert rows[1]["iou rock & <b>"] == ""
    assert rows[3]["miou"] == ""


def test_markdown_keeps_its_columns(tmp_path: Path) -> None:
    lines = board_tables.markdown(TABLE).splitlines()
    columns = len(board_tables.heads(TABLE))
    for line in lines[:6]:
        assert line.replace(r"\|", "").count("|") == columns + 1
    assert r"a\|b" in lines[3]
    assert "about 1,200 images or groups (now 60) or 9 seeds (now 3) would settle it" in lines[3]
    assert "<0.001" in lines[4].replace("\\", "")


def test_latex_escapes_and_marks_the_best() -> None:
    text = board_tables.latex(TABLE)
    assert r"dice\_$<$i$>$ & \textbf{0.6200}" in text
    assert r"rock \& $<$b$>$" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in body} == {len(board_tables.heads(TABLE)) - 2}


def test_front_is_what_nothing_beats_at_less_cost() -> None:
    assert board_page.pareto_front({"a": (1, 0.5), "b": (2, 0.4), "c": (2, 0.6), "d": (3, 0.6)}) == ["a", "c"]


def test_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    path = board_page.write_board_page(TABLE, tmp_path / "leaderboard.html")
    text = path.read_text()
    assert "dice_&lt;i&gt;" in text
    assert "Which &lt;loss&gt;?" in text
    assert "<script" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert text.count("<svg") == 3
    assert "nan" not in text.lower().replace("nanmean", "")
    path.write_text("mine")
    with pytest.raises(OutputError, match="no segwright page"):
        board_page.write_board_page(TABLE, path)


def test_comparison_shows_all_runs_side_by_side(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), dtype=np.uint8)
    image = np.full((20, 30, 3), 90, dtype=np.uint8)
    side = Side("<x>", "differ", (0.2, 0.9), image, mask, (mask + 1, mask))
    gap = Comparison(Interval(0.1, 0.02, 0.2), 0.01)
    runs = (
        Compared(Path("runs/a"), Interval(0.5, 0.4, 0.6), (0.5, math.nan), Cost(1.0, 10, None)),
        Compared(Path("runs/b"), Interval(0.6, 0.5, 0.7), (0.7, math.nan), Cost(None, None, 3.0), gap,
                 (gap, Comparison(NOTHING, math.nan)), 0.01, "better"),
    )  # fmt: skip
    scores = np.array([[0.2, np.nan], [0.9, 0.5]])
    found = RunComparison("val", "declared", CLASSES, ("<x>", "y"), 2, runs, scores, (side,))
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"photo.png: stands there, and no page of segwright beside it"):
        comparison_page.write_comparison(found, tmp_path / "photo.html")
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]
    page, picture = comparison_page.write_comparison(found, tmp_path / "ab.html")
    text = page.read_text()
    assert text.count("<img") == 4
    assert "&lt;x&gt;" in text
    assert "better" in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    sheet = comparison_page.contact_sheet(found)
    assert sheet.shape[1] == 4 * (comparison_page._CELL_PX + comparison_page._GAP_PX)
