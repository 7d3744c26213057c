"""How far a run of a study is, from what stands in its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from segwright.files import write_json, write_yaml
from segwright.runs import is_ended_refit, is_refit
from segwright.studies.state import is_done

REFIT = {"data": {"split": {"refit": "runs/first"}}}


@pytest.mark.parametrize(
    ("files", "recipe", "done"),
    [
        (("scores/val.json",), {}, True),
        (("report.html",), REFIT, True),
        (("report.html",), {"data": {"split": {"refit": None}}}, False),
        (("report.html",), None, False),
        (("resume.ckpt",), REFIT, False),
    ],
)
def test_a_report_alone_ends_a_refit_only(tmp_path: Path, files: tuple[str, ...], recipe: object, done: bool) -> None:
    for name in files:
        write_json(tmp_path / name, {})
    if recipe is not None:
        write_yaml(tmp_path / "recipe.yaml", recipe)
    assert not is_done(tmp_path), "without a model nothing is done"
    write_json(tmp_path / "bundle" / "bundle.json", {})
    assert is_done(tmp_path) == done


@pytest.mark.parametrize("text", ["", "- 1", "data: [1]", "data: {split: 3}", "data: {split: {refit: runs", "{"])
def test_a_damaged_recipe_is_no_refit(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.html").touch()
    (tmp_path / "recipe.yaml").write_text(text)
    assert not is_ended_refit(tmp_path)
    assert is_refit(REFIT)
