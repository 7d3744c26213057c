"""The audit from the command line: the screen, the exit codes, and a training that takes the repaired card."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segwright
from segwright.cli import main
from segwright.data.synthetic import write_terrain

TINY = [
    *("--epochs", "1", "-o", "model.name=unet", "-o", "model.encoder=null"),
    *("-o", "model.arguments={depth: 2, width: 4}", "-o", "training.batch_size=4", "-o", "augment.preset=none"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good/ and bad/ photos, of which two are noise and four share a mask."""
    folder = tmp_path_factory.mktemp("home")
    write_terrain(folder / "good", images=40, size=(48, 64), seed=1)
    write_terrain(folder / "bad", images=40, size=(48, 64), seed=2, layout="pairs")
    rng = np.random.default_rng(0)
    for i in (1, 2):
        noise = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "bad" / "images" / f"terrain_000{i}.png")
    for i in range(11, 15):
        shutil.copy(folder / "bad/masks/terrain_0010.png", folder / f"bad/masks/terrain_00{i}.png")
    return folder


def call(folder: Path, *words: str) -> int:
    """The exit code of `segwright words...` in a folder."""
    before, argv = Path.cwd(), sys.argv
    os.chdir(folder)
    sys.argv = ["segwright", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        os.chdir(before)
        sys.argv = argv
    return 0


def test_bad_data_leave_with_1_and_one_screen(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(home, "audit", "bad") == 1
    screen = capsys.readouterr().out
    assert screen.startswith("bad: must be mended. In 40 images, 2 things would spoil")
    for said in ("noise", "terrain_0001", "leave them out", "one mask", "and 2 more"):
        assert said.lower() in screen.lower(), said
    assert "segwright audit bad --fix clean.yaml" in screen
    assert "Page: audit-bad/audit.html" in screen
    assert len(screen.splitlines()) < 40
    assert "\x1b" not in screen
    assert sorted(path.name for path in (home / "audit-bad").iterdir()) == ["audit.html", "audit.json", "examples"]


def test_good_data_leave_with_0(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(home, "audit", "good", "-o", "checked") == 0
    screen = capsys.readouterr().out
    assert "must be mended" not in screen
    assert (home / "checked" / "audit.html").is_file()


def test_training_stops_at_bad_data_unless_told_otherwise(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(home, "train", "bad", *TINY) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for said in ("2 of 40 pictures are noise", "one mask stands beside", "segwright audit bad --fix", "--no-audit"):
        assert said in error
    assert not (home / "runs").exists()
    assert call(home, "train", "bad", "--no-audit", "--name", "blind", *TINY) == 0
    assert "audit: false" in (home / "runs/blind/recipe.yaml").read_text()


def test_training_names_the_audit_where_a_file_is_broken(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(home / "good", tmp_path / "broken")
    mask = next((tmp_path / "broken" / "train" / "masks").iterdir())
    mask.write_bytes(mask.read_bytes()[:70])
    assert call(tmp_path, "train", "broken", *TINY) == 2
    error = capsys.readouterr().err
    assert mask.name in error
    assert "segwright audit broken" in error
    assert error.count("\n") == 1


def test_the_repaired_card_can_be_trained_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(home, "audit", "bad", "-o", "again", "--fix", "clean.yaml") == 1
    screen = capsys.readouterr().out
    assert "segwright train clean.yaml" in screen
    assert call(home, "train", "clean.yaml", "--name", "clean", *TINY) == 0
    dropped = set(json.loads((home / "again" / "audit.json").read_text())["drop"])
    assert dropped >= {"terrain_0001", "terrain_0002", "terrain_0010", "terrain_0014"}
    split = json.loads((home / "runs" / "clean" / "split.json").read_text())
    assert not dropped & {name for side in split.values() for name in side}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: is missing"),
        (["bad", "--test", "nowhere"], "nowhere: is missing"),
        (["bad", "-o", "good"], "holds other files"),
        (["bad", "-o", "bad/audit"], "inside the data"),
        (["bad", "--quick", "--probabilities", "good/classes.txt"], "Leave one of the two out"),
        (["bad", "--fix", "card.txt"], "no name of a card"),
        (["bad", "--fix", "good/classes.yaml", "-o", "good/classes.txt"], "is a file"),
        (["bad", "--probabilities", "nowhere.npz"], "nowhere.npz"),
        (["bad", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_a_slip_is_answered_in_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert call(home, "audit", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("segwright: ")
    assert said in error
    assert error.count("\n") == 1


def test_an_audit_never_goes_into_the_data(tmp_path: Path) -> None:
    write_terrain(tmp_path / "photos", images=6, size=(32, 32), layout="pairs")
    call(tmp_path / "photos", "audit", ".")
    assert (tmp_path / "audit-photos" / "audit.json").is_file()
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["classes.txt", "images", "masks"]


def test_python_means_the_same(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = segwright.audit(home / "bad", out=tmp_path / "audit", progress=False)
    assert folder == tmp_path / "audit"
    assert json.loads((folder / "audit.json").read_text())["verdict"] == "mend"
    assert capsys.readouterr().out == ""
