from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segwright.bundle import load_bundle
from segwright.errors import RecipeError, RunError, TrainingError, WeightsError
from segwright.optim import Plateau
from segwright.recipe import Recipe, read_recipe
from segwright.training import callbacks
from segwright.training.lock import locked
from segwright.training.run import train

Tiny = Callable[..., Recipe]
Folder = Callable[..., Path]


def rows_of(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_and_leaves_all_its_files(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    run = train(tiny(photos(24), epochs=12), run=tmp_path / "run", progress=False)
    rows = rows_of(run)
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert max(float(str(row["val_miou"])) for row in rows) > 0.9
    assert all(float(str(row["val_miou"])) <= float(str(row["val_pixel_accuracy"])) <= 1 for row in rows)
    names = {path.name for path in run.iterdir()}
    assert {"recipe.yaml", "data.yaml", "split.json", "environment.json", "resume.ckpt", "bundle", "log.txt"} <= names
    assert [name for name in names if name.startswith(".")] == [".lock"]
    settled = read_recipe(run / "recipe.yaml")
    assert settled.augment.crop_px == (32, 32)
    assert settled.model.mean is not None
    bundle = load_bundle(run)
    assert bundle.info["score"]["value"] == pytest.approx(max(float(str(row["val_miou"])) for row in rows))
    assert bundle.classes.num_classes == 2


def test_the_same_seed_gives_the_same_weights(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(photos())
    states = [load_bundle(train(recipe, run=tmp_path / name, progress=False)).model.state_dict() for name in "ab"]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


class StoppedError(Exception):
    """Thrown into a run."""


@pytest.mark.usefixtures("save_always")
def test_a_run_that_was_cut_short_goes_on_to_the_same_weights(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(photos(), epochs=4)
    whole = train(recipe, run=tmp_path / "whole", progress=False)

    def cut(self: object, trainer: object, *_: object) -> None:
        if trainer.current_epoch == 2:  # type: ignore[attr-defined]
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.NanWatch, "on_train_batch_start", cut)
        with pytest.raises(StoppedError):
            train(recipe, run=tmp_path / "cut", progress=False)
    assert len(rows_of(tmp_path / "cut")) == 2
    run = train(recipe, run=tmp_path / "cut", resume=True, progress=False)
    assert [row["epoch"] for row in rows_of(run)] == [1, 2, 3, 4]
    states = [torch.load(path / "resume.ckpt", weights_only=True)["state_dict"] for path in (whole, run)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_budget_by_the_clock_ends_on_time(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(photos(), epochs=None, training={"minutes": 0.08})
    rows = rows_of(train(recipe, run=tmp_path / "run", progress=False))
    assert 2.0 < float(str(rows[-1]["seconds"])) < 8.0
    assert float(str(rows[-1]["lr"])) < 0.02


def test_fine_tuning_starts_from_the_given_weights(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    first = train(tiny(photos(24), epochs=12), run=tmp_path / "first", progress=False)
    more = tiny(photos(12, name="more", seed=7), epochs=1, optimizer={"lr": 1e-6}, model={"name": "fpn"})
    run = train(more, run=tmp_path / "second", start_from=first, progress=False)
    assert read_recipe(run / "recipe.yaml").model.name == "unet"
    assert float(str(rows_of(run)[0]["val_miou"])) > 0.85


def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    photos: Folder, tiny: Tiny, tmp_path: Path
) -> None:
    data, run = photos(), tmp_path / "run"
    library = {"name": "fpn", "encoder": "resnet18", "arguments": {}}
    for model, kind, said in (
        ({**library, "weights": "none", "freeze_encoder": True}, RecipeError, "stay random"),
        ({**library, "weights": "imagenet"}, WeightsError, "imagenet"),
        ({**library, "weights": "nowhere.safetensors"}, WeightsError, "missing"),
        ({"freeze_encoder": True}, RecipeError, "no encoder"),
        ({"name": "unte"}, RecipeError, "unet"),
    ):
        with pytest.raises(kind, match=said):
            train(tiny(data, model=model), run=run, progress=False)
    assert not run.exists()


def test_an_existing_run_is_left_alone(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").write_text("mine")
    with pytest.raises(RunError, match="exists"):
        train(tiny(photos()), run=tmp_path / "run", progress=False)
    with pytest.raises(RunError, match="nothing to resume"):
        train(tiny(photos(name="b")), run=tmp_path / "run", resume=True, progress=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious.txt"]


def test_a_loss_that_is_no_number_stops_the_run(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(photos(), optimizer={"lr": 1e30, "gradient_clip": None}, schedule={"name": "constant", "warmup": 0.0})
    with pytest.raises(TrainingError, match=r"no longer a number.*flight"):
        train(recipe, run=tmp_path / "run", progress=False)


def test_tensorboard_gets_the_same_numbers(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tiny(photos(), training={"tensorboard": True}), run=tmp_path / "run", progress=False)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    written = [event.value for event in events.Scalars("val_miou")]
    assert written == pytest.approx([float(str(row["val_miou"])) for row in rows_of(run)])


def test_early_stopping_ends_a_run_that_no_longer_gains(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(photos(), epochs=30, optimizer={"lr": 1e-9}, training={"early_stopping": 3, "ema": 0.0})
    rows = rows_of(train(recipe, run=tmp_path / "run", progress=False))
    scores = [float(str(row["val_miou"])) for row in rows]
    assert len(rows) < 30
    assert scores.index(max(scores)) == len(rows) - 4


def test_early_stopping_by_the_loss(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    training: dict[str, object] = {"early_stopping": 2, "minimum_gain": 0.05, "watch": "loss", "ema": 0.0}
    run = train(tiny(photos(24), epochs=30, training=training), run=tmp_path / "run", progress=False)
    losses = [float(str(row["val_loss"])) for row in rows_of(run)]
    least, since = math.inf, 0
    for epoch, loss in enumerate(losses, 1):
        if least - loss >= 0.05:
            least, since = loss, epoch
    assert len(losses) == since + 2 < 30
    assert "no better validation loss for 2 epochs: stopping early" in (run / "log.txt").read_text()


def test_a_plateau_by_the_loss(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    parts: dict[str, dict[str, object]] = {
        "schedule": {"name": "plateau", "patience": 1, "warmup": 0},
        "training": {"watch": "loss", "ema": 0.0},
        "optimizer": {"lr": 0.2},
    }
    run = train(tiny(photos(24), epochs=12, **parts), run=tmp_path / "run", progress=False)
    rows = rows_of(run)
    plateau = Plateau(drop=0.1, patience=1)
    factors = []
    for row in rows:
        factors.append(plateau.factor)
        plateau.seen(-float(str(row["val_loss"])), epoch=int(str(row["epoch"])))
    assert [row["lr"] for row in rows] == pytest.approx([0.2 * factor for factor in factors])
    assert plateau.factor < 1


def test_two_processes_do_not_write_one_run(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(photos())
    run = train(recipe, run=tmp_path / "run", progress=False)
    with locked(run), pytest.raises(RunError, match="another process"):
        train(recipe, run=run, resume=True, progress=False)


def test_ctrl_c_ends_a_run_as_python_does_and_it_can_be_resumed(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(photos(), epochs=4)
    before = signal.getsignal(signal.SIGINT)

    def interrupt(self: object, trainer: object, *_: object) -> None:
        if trainer.current_epoch == 1:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.NanWatch, "on_train_batch_start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, run=tmp_path / "run", progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(rows_of(train(recipe, run=tmp_path / "run", resume=True, progress=False))) == 4


def test_a_run_killed_before_its_first_save_starts_again(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(photos())
    run = train(recipe, run=tmp_path / "run", progress=False)
    whole = torch.load(run / "resume.ckpt", weights_only=True)["state_dict"]
    (run / "resume.ckpt").unlink()
    train(recipe, run=run, resume=True, progress=False)
    again = torch.load(run / "resume.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert len(rows_of(run)) == 2


def test_a_wrong_loss_leaves_no_run_behind(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="dice"):
        train(tiny(photos(), loss={"formula": "dcie"}), run=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
