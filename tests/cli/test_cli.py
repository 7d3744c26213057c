"""The command line end to end on generated terrain, and every way in which a user may slip."""

from __future__ import annotations

import csv
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

import segwright
from segwright import metrics
from segwright.augment import matching
from segwright.cli import main, menus
from segwright.data.synthetic import write_terrain
from segwright.errors import RunError
from segwright.prediction import tta
from segwright.prediction.submission import read_labels_csv, read_runs_csv

SMALL = [
    *("-o", "model.name=unet", "-o", "model.encoder=null", "-o", "model.arguments={depth: 2, width: 4}"),
    *("-o", "training.batch_size=4", "-o", "augment.preset=none", "-o", "training.ema=0.5"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ and a run of one epoch."""
    folder = tmp_path_factory.mktemp("home")
    write_terrain(folder / "photos", images=16, size=(32, 48), seed=0)
    assert call(folder, "train", "photos", "--name", "first", "--epochs", "1", *SMALL) == 0
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


def test_train_leaves_a_whole_run(home: Path) -> None:
    run = home / "runs" / "first"
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    wanted = ["recipe.yaml", "split.json", "metrics.jsonl", "report.html", "scores/val.npz", "scores/val.json"]
    assert files >= {*wanted, "bundle/model.safetensors", "bundle/bundle.json", "bundle/card.md"}
    with np.load(run / "scores" / "val.npz") as scores:
        assert scores["confusion"].sum() == len(scores["ids"]) * 32 * 48
    told = json.loads((run / "scores/val.json").read_text())["definitions"]["declared"]["miou"]
    score = json.loads((run / "bundle/bundle.json").read_text())["info"]["score"]
    assert (score["value"], score["interval"]) == (told["estimate"], [told["low"], told["high"]])


def test_evaluate_other_side_and_other_data(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(home, "evaluate", "runs/first", "--split", "test") == 0
    out = capsys.readouterr().out
    assert "boulder" in out
    assert "mIoU" in out
    assert call(home, "evaluate", "runs/first", "--data", "photos/val") == 0
    own = json.loads((home / "runs/first/scores/val.json").read_text())
    other = json.loads((home / "runs/first/scores/data-val.json").read_text())
    assert own["confusion"] == other["confusion"]


def test_flips_have_scores_and_masks_of_their_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (home / "runs/first/scores/val.json").read_bytes()
    assert call(home, "evaluate", "runs/first", "--flips", "horizontal", "--match", "moments") == 0
    assert "val-moments-horizontal" in capsys.readouterr().out
    found = json.loads((home / "runs/first/scores/val-moments-horizontal.json").read_text())
    assert (found["match"], found["flips"]) == ("moments", "horizontal")
    words = ("--split", "val-moments-horizontal", "-o", "asked.html")
    assert call(home, "compare", "runs/first", "runs/first", *words) == 0
    assert (home / "asked.png").is_file()
    assert call(home, "evaluate", "runs/first", "--data", "photos/val") == 0
    assert call(home, "compare", "runs/first", "runs/first", "--split", "data-val") == 2
    assert "whose images cannot be shown" in capsys.readouterr().err
    assert (home / "runs/first/scores/val.json").read_bytes() == before
    assert call(home, "predict", "runs/first", "photos/val/images", "-o", "masks-all", "--flips", "all") == 0
    predictor = segwright.load(home / "runs" / "first", flips="all")
    for path in (home / "photos/val/images").iterdir():
        with Image.open(home / "masks-all" / path.name) as mask:
            np.testing.assert_array_equal(np.asarray(mask), predictor.predict(path).mask)


def test_report_can_be_written_elsewhere(home: Path) -> None:
    assert call(home, "report", "runs/first", "--out", "page.html") == 0
    assert "<html" in (home / "page.html").read_text()


def test_predict_agrees_with_python(home: Path) -> None:
    assert call(home, "predict", "runs/first", "photos/test/images", "-o", "masks") == 0
    predictor = segwright.load(home / "runs" / "first")
    for path in sorted((home / "photos/test/images").iterdir()):
        with Image.open(home / "masks" / path.name) as mask:
            np.testing.assert_array_equal(np.asarray(mask), predictor.predict(path).mask)


def test_predict_names_a_damaged_image_and_leaves_with_2(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 32)).save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG\r\n")
    assert call(tmp_path, "predict", str(home / "runs/first"), "in", "-o", "out") == 2
    said = capsys.readouterr()
    assert "Left out bad" in said.out
    assert "1 of 2 images" in said.err
    assert (tmp_path / "out" / "good.png").exists()


def test_fine_tune_and_resume(home: Path) -> None:
    assert call(home, "train", "photos", "--from", "runs/first", "--epochs", "1") == 0
    recipe = (home / "runs/photos-1/recipe.yaml").read_text()
    assert "width: 4" in recipe
    assert call(home, "train", "runs/photos-1", "--resume") == 0


def test_short_options_become_keys(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = {"train": [f"terrain_{i:04d}" for i in range(5, 12)], "val": ["terrain_0000", "terrain_0001"]}
    (home / "mine.json").write_text(json.dumps(sides))
    names = "air,earth,dune,stone,lump"
    words = ["--classes", names, "--ignore-in-score", "air", "--split", "mine.json", "--name", "ruled", "--epochs", "1"]
    assert call(home, "train", "photos", *words, *SMALL) == 0
    run = home / "runs/ruled"
    kept = json.loads((run / "split.json").read_text())["val"]
    assert [name.rpartition("/")[2] for name in kept] == sides["val"]
    summary = json.loads((run / "scores/val.json").read_text())
    assert [row["name"] for row in summary["per_class"]] == names.split(",")
    assert "air" not in summary["definitions"]["declared"]["in_mean"]
    capsys.readouterr()
    assert call(home, "evaluate", "runs/ruled", "--score-as", "keras-mars") == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    mars = summary["definitions"]["keras-mars"]
    value, low, high = (mars["miou"][key] for key in ("estimate", "low", "high"))
    assert told[0] == f"mIoU under 'keras-mars' {value:.3f} ({low:.3f} to {high:.3f}): {mars['sentence']}"
    assert sum(line.startswith("mIoU under 'keras-mars'") for line in told) == 1
    pairs = summary["dice_per_image_label"]["estimate"]
    assert any(line.startswith(f"Dice per image and label {pairs:.3f} (") for line in told)
    most = summary["prevalent_accuracy"]["estimate"]
    assert any(line.startswith(f"prevalent class {most:.3f} (") for line in told)
    assert segwright.evaluate(run, score_as="keras-mars", progress=False).miou == pytest.approx(value)


def test_the_menus_are_those_of_the_rooms_below() -> None:
    assert get_args(menus.Definition) == get_args(metrics.Definition)
    assert get_args(menus.Matching) == get_args(matching.Matching)
    assert get_args(menus.Flips) == get_args(tta.Flips)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "nowhere"], "nowhere: is missing"),
        (["train", "photos", "--name", "first"], "this run exists"),
        (["train", "photos", "--name", "a/b"], "no name for a run"),
        (["train", "photos", "-o", "optimizer.lrr=1"], "unknown key 'optimizer.lrr'. Did you mean 'lr'?"),
        (["train", "photos", "-o", "optimizer"], "is no assignment"),
        (["train", "photos", "--epochs", "1", "--minutes", "1"], "in epochs or in minutes, not both"),
        (["train", "runs/first", "--resume", "-o", "optimizer.lr=0.5"], "optimizer.lr: 0.001 -> 0.5"),
        (["train", "runs/first", "--resume", "-o", "model.name=fpn", "--force"], "this would be another run"),
        (["train", "runs/first", "--resume", "--name", "second"], "under its own name"),
        (["train", "runs/first", "--resume", "--out", "elsewhere"], "under its own name"),
        (["train", "photos", "--force"], "--force is for --resume"),
        (["train", "photos", "--from", "runs/furst"], "there are: first"),
        (["evaluate", "runs/first", "--split", "tset"], "no images in 'tset'"),
        (["evaluate", "runs/nothing"], "runs/nothing: is missing"),
        (["evaluate", "runs/first", "--score-as", "keras-mars"], "without classes.ignore_in_score"),
        (["evaluate", "runs/first", "--score-as", "leave_out_of_mean"], "classes.leave_out_of_mean or ignore_in_score"),
        (["predict", "runs/first", "photos/test/images", "-o", "photos/test/images"], "inside the folder"),
        (["predict", "runs/first", "photos/test/images", "-o", "masks", "--csv", "runs"], "ends in .csv"),
        (["predict", "runs/first", "photos/test/images", "-o", "x.csv", "--key", "x"], "no file of arrays"),
        (["predict", "runs/first", "photos/test/images", "-o", "m", "--device", "toaster"], "device 'toaster'"),
        (["report", "photos"], "photos: is no run"),
        (["models", "unett"], "did you mean 'unet'"),
        (["models", "--measure", "unet", "--size", "64"], "rows and columns"),
        (["models", "--measure", "unet", "--write", "costs.txt"], "neither .csv nor .json"),
        (["weights", "resnet"], "there is no encoder 'resnet'"),
    ],
)
def test_a_slip_is_answered_in_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert call(home, *words) == 2
    error = capsys.readouterr().err
    assert said.lower() in error.lower()
    assert error.startswith("segwright: ")
    assert error.count("\n") == 1


def test_debug_shows_where_it_came_from(home: Path) -> None:
    with pytest.raises(RunError):
        call(home, "evaluate", "runs/nothing", "--debug")


def test_interrupt_leaves_with_130(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segwright import verbs

    def interrupted(*_: object, **__: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs, "report", interrupted)
    assert call(home, "report", "runs/first") == 130


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="only there signals are caught")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_while_training_names_the_command_that_goes_on(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    from segwright.training.module import SegmentationModule

    original = SegmentationModule.training_step

    def step(self: SegmentationModule, *arguments: object) -> object:
        os.kill(os.getpid(), number)
        return original(self, *arguments)

    name = f"stopped-{code}"
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", step)
        assert call(home, "train", "photos", "--name", name, "--epochs", "1", *SMALL) == code
    error = capsys.readouterr().err
    assert f"segwright: stopped by {number.name}; go on with: segwright train runs/{name} --resume\n" in error
    if number == signal.SIGTERM:
        assert call(home, "train", f"runs/{name}", "--resume", "--epochs", "2") == 0
        assert (home / "runs" / name / "report.html").exists()


def test_lists_of_models_weights_and_cache(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(home, "models") == 0
    assert "unet" in capsys.readouterr().out
    assert call(home, "models", "fpn") == 0
    assert "resnet18" in capsys.readouterr().out
    assert call(home, "weights", "resnet18") == 0
    assert "imagenet" in capsys.readouterr().out
    assert call(home, "cache") == 0
    assert "photos" in capsys.readouterr().out


def test_models_are_measured(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from segwright.models import measure

    monkeypatch.setattr(measure, "SECONDS_A_TIMING", 0.01)
    words = ["models", "--measure", "swiftnet:tu-test_resnet", "fpn:nothing", "--size", "32x48", "--batch", "2"]
    assert call(home, *words, "--write", "costs.csv") == 0
    shown = capsys.readouterr().out
    assert "swiftnet:tu-test_resnet" in shown
    assert "fpn:nothing: failed: there is no encoder 'nothing'" in shown
    with (home / "costs.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == ["swiftnet", "fpn"]
    assert float(rows[0]["forward_per_second"]) > 0
    assert rows[1]["forward_per_second"] == ""
    assert rows[0]["paper"] == "https://arxiv.org/abs/1903.08469"
    assert [rows[1][key] for key in ("size", "channels", "classes", "device")] == ["32x48", "3", "5", "cpu"]
    assert int(rows[0]["threads"]) == torch.get_num_threads()
    assert rows[0]["torch"] == torch.__version__.partition("+")[0]
    assert dt.date.fromisoformat(rows[0]["date"])
    assert call(home, *words, "--write", "costs.csv") == 2
    assert "stands there already" in capsys.readouterr().err


def test_cache_is_cleared(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGWRIGHT_CACHE", str(tmp_path))
    assert call(home, "evaluate", "runs/first") == 0
    assert list((tmp_path / "packs").glob("*/index.json"))
    assert call(home, "cache", "clear") == 0
    assert not list((tmp_path / "packs").glob("*/index.json"))


def test_python_means_the_same(home: Path, tmp_path: Path) -> None:
    run = segwright.train(
        home / "photos",
        out=tmp_path,
        epochs=1,
        overrides={
            "model.name": "unet",
            "model.encoder": None,
            "model.arguments": {"depth": 2, "width": 4},
            "optimizer.lr": 1e-5,
        },
        progress=False,
    )
    assert run == tmp_path / "photos-1"
    assert "lr: 1.0e-05" in (run / "recipe.yaml").read_text()
    assert segwright.evaluate(run, progress=False).miou >= 0
    assert segwright.report(run) == run / "report.html"


@pytest.mark.parametrize("words", [["--help"], ["train", "-h"], ["cache", "--help"], ["--version"]])
def test_help_waits_for_nothing(words: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['segwright', *sys.argv[1:]]; from segwright.cli import main\n"
        "try: main()\nexcept SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'lightning', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "segwright" in done.stdout


def test_import_is_light() -> None:
    code = "import sys, segwright; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'typer')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def masks_as(folder: Path, other: Path, *, table: dict[int, int], names: list[str] | None = None) -> None:
    """A copy of a side of the photos whose masks hold other values."""
    for part in ("images", "masks"):
        (other / part).mkdir(parents=True)
    for path in sorted((folder / "images").iterdir()):
        Image.open(path).save(other / "images" / path.name)
        mask = np.array(Image.open(folder / "masks" / path.name))
        Image.fromarray(np.vectorize(table.get, otypes=[np.uint8])(mask)).save(other / "masks" / path.name)
    if names is not None:
        (other / "classes.txt").write_text("\n".join(names))


def test_other_data_with_other_classes_is_not_scored_as_ours(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = {k: k for k in range(256)}
    names = (home / "photos" / "classes.txt").read_text().split()
    masks_as(home / "photos" / "val", tmp_path / "turned", table=same, names=names[::-1])
    masks_as(home / "photos" / "val", tmp_path / "equal", table=same, names=names)
    assert call(home, "evaluate", "runs/first", "--data", str(tmp_path / "equal")) == 0
    assert call(home, "evaluate", "runs/first", "--data", str(tmp_path / "turned")) == 2
    assert "its classes are" in capsys.readouterr().err


def test_two_classes_as_0_and_1_or_as_0_and_255_are_the_same(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks_as(home / "photos" / "train", tmp_path / "small", table={k: int(k > 1) for k in range(256)})
    masks_as(home / "photos" / "train", tmp_path / "large", table={k: 255 * int(k > 1) for k in range(256)})
    assert call(tmp_path, "train", "small", "--name", "two", "--epochs", "1", *SMALL) == 0
    assert call(tmp_path, "evaluate", "runs/two", "--data", "small") == 0
    assert call(tmp_path, "evaluate", "runs/two", "--data", "large") == 0
    scores = [json.loads((tmp_path / f"runs/two/scores/{name}.json").read_text()) for name in ("small", "large")]
    assert scores[0]["confusion"] == scores[1]["confusion"]


def test_a_submission_holds_the_values_of_the_masks(home: Path, tmp_path: Path) -> None:
    masks_as(home / "photos" / "train", tmp_path / "large", table={k: 255 * int(k > 1) for k in range(256)})
    assert call(tmp_path, "train", "large", "--name", "two", "--epochs", "1", *SMALL) == 0
    bundle = json.loads((tmp_path / "runs/two/bundle/bundle.json").read_text())
    assert bundle["info"]["mask_values"] == [0, 255]
    for form in ("labels", "runs"):
        assert call(tmp_path, "predict", "runs/two", "large/images", "-o", f"{form}.csv", "--csv", form) == 0
    sizes = (32, 48)
    labels = dict(read_labels_csv(tmp_path / "labels.csv", size=sizes))
    runs = dict(read_runs_csv(tmp_path / "runs.csv", sizes=sizes))
    predictor = segwright.load(tmp_path / "runs/two")
    assert sorted(labels) == sorted(runs) == sorted(path.name for path in (tmp_path / "large/images").iterdir())
    for name, stored in labels.items():
        np.testing.assert_array_equal(stored, runs[name])
        np.testing.assert_array_equal(
            stored, 255 * predictor.predict(tmp_path / "large/images" / name).mask.astype(int)
        )


def test_one_class_alone_is_refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks_as(home / "photos" / "train", tmp_path / "crack", table={k: 255 * int(k > 1) for k in range(256)})
    assert call(tmp_path, "train", "crack", "--classes", "crack", "--epochs", "1", *SMALL) == 2
    assert "background" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_fine_tuning_keeps_the_class_names(home: Path, tmp_path: Path) -> None:
    masks_as(home / "photos" / "val", tmp_path / "new", table={k: k for k in range(256)})
    assert call(tmp_path, "train", "new", "--from", str(home / "runs/first"), "--name", "more", "--epochs", "1") == 0
    bundles = [
        json.loads((run / "bundle/bundle.json").read_text()) for run in (home / "runs/first", tmp_path / "runs/more")
    ]
    assert bundles[0]["classes"]["names"] == bundles[1]["classes"]["names"]


def test_scores_stand_at_native_size_whatever_the_working_size(home: Path, tmp_path: Path) -> None:
    words = ["train", str(home / "photos"), "--name", "small", "--epochs", "1", "-o", "data.working_size_px=24", *SMALL]
    assert call(tmp_path, *words) == 0
    with np.load(tmp_path / "runs/small/scores/val.npz") as scores:
        assert scores["confusion"].sum() == len(scores["ids"]) * 32 * 48


def test_lists_of_losses_optimisers_and_schedules(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb, word in (("losses", "focal_tversky"), ("optimizers", "rmsprop"), ("schedules", "one_cycle")):
        assert call(home, verb) == 0
        assert word in capsys.readouterr().out
    assert call(home, "schedules", "--plot", "rates.svg") == 0
    assert (home / "rates.svg").read_text().count("<svg") == 1
    assert call(home, "schedules", "--plot", "rates.svg") == 2
    assert "exists already" in capsys.readouterr().err
