"""`segwright leaderboard`, `compare --no-images` and `runs` on folders that were written by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segwright.cli import main
from segwright.cli.text import show_table
from segwright.files import write_json, write_yaml
from segwright.recipe import make_recipe


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Exit code and output of `segwright words...`."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["segwright", *words])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out + told.err

    return run


def test_leaderboard_in_every_format(write_study: Callable[..., Path], call: Callable[..., tuple[int, str]]) -> None:
    out = write_study({"ce": 0.70, "dice": 0.80, "jaccard": 0.701})
    code, told = call("leaderboard", str(out))
    assert code == 0
    assert "dice: best; better than ce" in told
    assert "too close to call with ce" in told
    for name in ("results.csv", "leaderboard.md", "leaderboard.tex", "leaderboard.html"):
        assert (out / name).stat().st_size > 300
    assert call("leaderboard", str(out), "--format", "csv")[1].strip() == (out / "results.csv").read_text().strip()
    assert (
        call("leaderboard", str(out), "--format", "latex")[1].strip() == (out / "leaderboard.tex").read_text().strip()
    )
    code, told = call("leaderboard", str(out), "--baseline", "dicee")
    assert (code, "Did you mean 'dice'" in told) == (2, True)


def test_a_table_that_is_too_wide_comes_in_parts_with_the_rows_named_in_each(
    write_study: Callable[..., Path], call: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_study({"ce": 0.70, "dice": 0.80, "jaccard": 0.701})
    heads = ["mIoU", "seeds", "95 % interval", "to the best", "p, best", "to the baseline", "p, baseline"]
    lines = {}
    for columns in (60, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines[columns] = call("leaderboard", str(out))[1].split("cost of a run")[0].splitlines()
        assert all(len(line) <= columns for line in lines[columns] if "row" in line)
        assert all(any(head in line for line in lines[columns]) for head in heads), columns
    parts = [line for line in lines[60] if line.strip().startswith("row ")]
    assert len(parts) > len([line for line in lines[200] if line.strip().startswith("row ")]) == 1
    assert sum("jaccard" in line for line in lines[60]) == len(parts)
    narrow, wide = (sorted(word for line in lines[key] for word in line.split() if "." in word) for key in (60, 200))
    assert narrow == wide


def test_no_number_is_cut_off_at_any_width(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    heads = ["row", "[/red]", ":car:", "mIoU", "sd"]
    rows = [["a b", "0.1234", "0.2345", "0.3456", "0.4567"], ["[red]", "1", "2", "3", "0.5678"]]
    numbers = sorted(cell for row in rows for cell in row[1:])
    for columns in range(18, 60):
        monkeypatch.setenv("COLUMNS", str(columns))
        show_table("t", heads, rows, right=heads[1:])
        told = capsys.readouterr().out
        words = told.split()
        assert sorted(word for word in words if word in numbers) == numbers, columns
        assert {"[/red]", ":car:", "[red]"} <= set(words)
        assert "…" not in told


def test_compare_and_runs(
    tmp_path: Path, write_run: Callable[..., None], confusion: Callable[..., np.ndarray],
    call: Callable[..., tuple[int, str]],
) -> None:  # fmt: skip
    for number, name in enumerate("ab"):
        write_run(tmp_path / name, confusion(0.6 + number / 5, seed=number))
        write_yaml(tmp_path / name / "recipe.yaml", make_recipe({"training": {"seed": number}}).as_dict())
        write_json(tmp_path / name / "environment.json", {"seed": number})
    page = tmp_path / "ab.html"
    code, told = call("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--no-images", "-o", str(page))
    assert (code, "better" in told) == (0, True)
    assert "<img" not in page.read_text()
    assert "under" not in told
    words = ("--no-images", "-o", str(page), "--definition", "keras-mars")
    assert "mIoU under 'keras-mars'" in call("compare", str(tmp_path / "a"), str(tmp_path / "b"), *words)[1]
    assert "by the mIoU under" in page.read_text()
    assert "2 runs" in call("runs", "--in", str(tmp_path))[1]
    assert "1 runs" in call("runs", "seed=1", "--in", str(tmp_path), "--tag", "good")[1]
    assert call("runs", "--in", str(tmp_path), "--remove")[0] == 2
    assert "Moved to" in call("runs", "tag=good", "--in", str(tmp_path), "--remove")[1]
    assert not (tmp_path / "b").exists()


def test_what_reads_scores_does_not_wait_for_pytorch(
    tmp_path: Path, write_run: Callable[..., None], confusion: Callable[..., np.ndarray]
) -> None:
    for number, name in enumerate("ab"):
        write_run(tmp_path / name, confusion(0.6 + number / 5, seed=number))
        write_yaml(tmp_path / name / "recipe.yaml", make_recipe({"training": {"seed": number}}).as_dict())
        write_json(tmp_path / name / "environment.json", {"seed": number})
    code = (
        "import sys\n"
        "from segwright.cli import main\n"
        "for words in (['leaderboard', '.'], ['compare', 'a', 'b', '--no-images'], ['runs']):\n"
        "    sys.argv = ['segwright', *words]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, words\n"
        "import segwright.reporting.page\n"
        "heavy = {'torch', 'lightning', 'timm', 'scipy.stats', 'sklearn', 'skimage', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["results.csv", "leaderboard.md", "leaderboard.html"])
def test_a_table_overwrites_no_file_of_others(
    tmp_path: Path, write_run: Callable[..., None], confusion: Callable[..., np.ndarray],
    call: Callable[..., tuple[int, str]], name: str,
) -> None:  # fmt: skip
    write_run(tmp_path / "a", confusion(0.6, seed=0))
    write_yaml(tmp_path / "a" / "recipe.yaml", make_recipe({}).as_dict())
    (tmp_path / name).write_text("mine\n")
    code, _ = call("leaderboard", str(tmp_path))
    assert (code, (tmp_path / name).read_text()) == (2, "mine\n")
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [name]
    (tmp_path / name).unlink()
    for _ in range(2):
        assert call("leaderboard", str(tmp_path))[0] == 0
