from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from segwright import bundle
from segwright.errors import OutputError, RecipeError, RunError, RunStopped
from segwright.files import read_yaml, write_yaml
from segwright.recipe import Recipe, read_recipe
from segwright.runs import stages_folder
from segwright.training.lock import locked
from segwright.training.module import SegmentationModule
from segwright.training.resuming import check_recipe, command_to_resume, tidy
from segwright.training.run import train
from segwright.verbs import evaluate

Tiny = Callable[..., Recipe]
Folder = Callable[..., Path]
in_main_thread = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="only the main thread gets signals"
)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, write_photos: Folder, tiny: Tiny) -> tuple[Recipe, Path]:
    """A run of two epochs of three steps that nothing disturbed."""
    home = tmp_path_factory.mktemp("unbroken")
    recipe = tiny(write_photos(home / "photos", count=16), epochs=2)
    return recipe, train(recipe, run=home / "run", progress=False)


def rows_of(run: Path) -> list[dict[str, object]]:
    """The rows without what depends on the clock."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("epoch", "step", "train_loss", "val_loss", "val_iou", "lr")} for row in rows]


def state_of(run: Path) -> dict[str, object]:
    return torch.load(run / "resume.ckpt", weights_only=True)


def assert_same(run: Path, other: Path) -> None:
    """Bit for bit: weights, average, optimiser, chance, record and bundle."""
    one, two = state_of(run), state_of(other)
    for name, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][name]), name
    moments = [state["optimizer_states"][0]["state"] for state in (one, two)]
    for number, values in moments[0].items():
        assert all(torch.equal(value, moments[1][number][name]) for name, value in values.items())
    chance = [state["callbacks"]["ChanceCallback"]["chance"][0][0] for state in (one, two)]
    assert torch.equal(*chance)
    assert rows_of(run) == rows_of(other)
    weights = [(folder / "bundle" / "model.safetensors").read_bytes() for folder in (run, other)]
    assert weights[0] == weights[1]


def signalled(monkeypatch: pytest.MonkeyPatch, *, method: str, step: int, number: signal.Signals) -> None:
    """Send this process a signal once, at the first call of a method of the module after so many steps."""
    original, sent = getattr(SegmentationModule, method), []

    def patched(self: SegmentationModule, *arguments: object) -> object:
        if self.global_step == step and not sent:
            sent.append(True)
            os.kill(os.getpid(), number)
        return original(self, *arguments)

    monkeypatch.setattr(SegmentationModule, method, patched)


@in_main_thread
@pytest.mark.parametrize(
    ("method", "step", "number"),
    [
        ("training_step", 1, signal.SIGTERM),
        ("training_step", 5, signal.SIGINT),
        ("validation_step", 3, signal.SIGHUP),
        ("validation_step", 6, signal.SIGTERM),
    ],
)
def test_a_signal_stops_a_run_that_goes_on_to_the_same_weights(
    unbroken: tuple[Recipe, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, step: int, number: int
) -> None:
    recipe, whole = unbroken
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        signalled(patch, method=method, step=step, number=signal.Signals(number))
        with pytest.raises(RunStopped, match=r"stopped by SIG\w+; go on with: segwright train .*run --resume") as stop:
            train(recipe, run=tmp_path / "run", progress=False)
    assert stop.value.signal_number == number
    assert (tmp_path / "run" / "log.txt").read_text().endswith(f"{stop.value}\n")
    assert signal.getsignal(signal.SIGTERM) is before
    assert state_of(tmp_path / "run")["global_step"] == step + (method == "training_step")
    run = train(recipe, run=tmp_path / "run", resume=True, progress=False)
    assert_same(run, whole)
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == [".lock"]


@in_main_thread
def test_a_second_signal_acts_at_once(
    unbroken: tuple[Recipe, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SegmentationModule.training_step

    def impatient(self: SegmentationModule, *arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(SegmentationModule, "training_step", impatient)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as stop:
        train(unbroken[0], run=tmp_path / "run", progress=False)
    assert not isinstance(stop.value, RunStopped)
    assert not (tmp_path / "run" / "resume.ckpt").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_budget_may_be_extended(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    constant = {"name": "constant", "warmup": 0.0}
    root = photos()
    whole = train(tiny(root, epochs=3, schedule=constant), run=tmp_path / "whole", progress=False)
    run = train(tiny(root, epochs=2, schedule=constant), run=tmp_path / "run", progress=False)
    before = state_of(run)["global_step"]
    train(tiny(root), run=run, resume=True, progress=False)
    assert state_of(run)["global_step"] == before
    assert "nothing was left to do" in (run / "log.txt").read_text()
    with pytest.raises(RunError, match="2 epochs are done"):
        train(tiny(root), run=run, resume=True, changes=["training.epochs=1"], progress=False)
    train(tiny(root), run=run, resume=True, changes=["training.epochs=3"], progress=False)
    assert_same(run, whole)
    assert read_recipe(run / "recipe.yaml").training.epochs == 3
    minutes = ["training.epochs=null", "training.minutes=1e-6"]
    with pytest.raises(RunError, match=r"minutes are spent.*more than"):
        train(tiny(root), run=run, resume=True, changes=minutes, progress=False)


def test_a_budget_by_the_clock_goes_on_with_a_new_epoch(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(photos(40), epochs=None, training={"minutes": 0.01})  # eight steps an epoch
    run = train(recipe, run=tmp_path / "run", progress=False)
    first = rows_of(run)[-1]
    longer = ["training.minutes=0.025", "training.precision=fp32"]
    train(recipe, run=run, resume=True, changes=longer, progress=False)
    rows = rows_of(run)
    assert rows[-1]["epoch"] > first["epoch"]
    assert rows[-1]["step"] > first["step"]
    assert [row["epoch"] for row in rows] == sorted({row["epoch"] for row in rows})
    spent = [json.loads(line)["seconds"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert spent == sorted(spent)
    assert 1.0 < spent[-1] < 5.0
    place = state_of(run)["callbacks"]["ChanceCallback"]["loader"]["step"]
    train(recipe, run=run, resume=True, progress=False)
    assert state_of(run)["callbacks"]["ChanceCallback"]["loader"]["step"] in (place, place + -place % 8)
    assert rows_of(run) == rows


def test_a_changed_recipe_is_named_and_refused_or_forced(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(photos(16), epochs=2)
    run = train(recipe, run=tmp_path / "run", progress=False)
    tree = read_yaml(run / "recipe.yaml")
    tree["optimizer"] |= {"lr": 0.01, "weight_decay": 0.3}
    write_yaml(run / "recipe.yaml", tree)
    changes = ["training.batch_size=2", "training.epochs=3"]
    said = r"optimizer.lr: 0.02 -> 0.01; optimizer.weight_decay: 0.01 -> 0.3; training.batch_size: 4 -> 2"
    with pytest.raises(RunError, match=rf"({said}).*--force"):
        train(recipe, run=run, resume=True, changes=changes, progress=False)
    assert read_recipe(run / "recipe.yaml").training.batch_size == 4
    train(recipe, run=run, resume=True, changes=changes, force=True, progress=False)
    settled = read_recipe(run / "recipe.yaml")
    assert (settled.optimizer.lr, settled.training.batch_size, settled.training.epochs) == (0.01, 2, 3)
    # Two epochs of three steps, and one of six.
    assert [row["step"] for row in rows_of(run)] == [3, 6, 12]
    (state,) = torch.load(run / "resume.ckpt", weights_only=True)["optimizer_states"]
    assert {group["initial_lr"] for group in state["param_groups"]} == {0.01}
    assert {group["weight_decay"] for group in state["param_groups"]} == {0.3, 0.0}
    train(recipe, run=run, resume=True, changes=["training.epochs=4"], progress=False)
    assert [row["step"] for row in rows_of(run)] == [3, 6, 12, 18]
    assert "changed  optimizer.lr: 0.02 -> 0.01" in (run / "log.txt").read_text()


def test_scores_on_other_masks_are_not_compared_with_those_before(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    data = photos(16)
    recipe = tiny(data, epochs=4)
    run = train(recipe, run=tmp_path / "run", progress=False)
    assert bundle.load_bundle(run).info["score"]["value"] > 0.5
    for name in json.loads((run / "split.json").read_text())["val"]:
        file = data / "masks" / f"{name}.png"
        Image.fromarray(1 - np.asarray(Image.open(file))).save(file)
    train(recipe, run=run, resume=True, changes=["training.epochs=5"], force=True, progress=False)
    info = bundle.load_bundle(run).info
    assert info["epoch"] == 5
    assert info["score"]["value"] < 0.5


def test_another_model_is_another_run_even_if_forced(tiny: Tiny, tmp_path: Path) -> None:
    before = tiny(tmp_path)
    for key, asked in (
        ("model.arguments", tiny(tmp_path, model={"arguments": {"width": 8, "depth": 2}})),
        ("data.split.seed", tiny(tmp_path, data={"split": {"seed": 3}})),
        ("classes.names", tiny(tmp_path, classes={"names": ["a", "b"]})),
        ("training.ema", tiny(tmp_path, training={"ema": 0.0})),
        ("training.swa", tiny(tmp_path, training={"swa": 0.3})),
        ("training.trainable", tiny(tmp_path, training={"trainable": ["head"]})),
    ):
        with pytest.raises(RunError, match=rf"another run: {key}.*--from"):
            check_recipe(before.as_dict(), asked, run=tmp_path, force=True)
    moved = tiny(tmp_path / "elsewhere", data={"resident": "memory"})
    assert len(check_recipe(before.as_dict(), moved, run=tmp_path, force=False)) == 2


def test_a_member_follows_the_rules_and_is_no_change_of_its_own(tiny: Tiny, tmp_path: Path) -> None:
    def ruled(labels: list[int], width: int = 4) -> Recipe:
        branch = {"name": "unet", "arguments": {"width": width}, "never_predict": labels}
        return tiny(tmp_path, model={"name": "ensemble", "arguments": {"members": [branch, branch]}})

    assert check_recipe(ruled([1]).as_dict(), ruled([]), run=tmp_path, force=False) == []
    with pytest.raises(RunError, match=r"another run: model.arguments"):
        check_recipe(ruled([1]).as_dict(), ruled([], width=8), run=tmp_path, force=True)


def test_a_stage_names_its_run_from_wherever_it_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = tmp_path / "night.stages" / "1-first"
    stage.mkdir(parents=True)
    (stage.parent / "staged.yaml").touch()
    wanted = f"segwright train {tmp_path / 'night'} --resume"
    for folder, run in (
        (stage.parent, "1-first"),
        (stage, "."),
        (stage, "../1-first"),
        (tmp_path, "night.stages/1-first"),
    ):
        monkeypatch.chdir(folder)
        assert command_to_resume(Path(run)) == wanted
    assert command_to_resume(Path("night")) == "segwright train night --resume"
    monkeypatch.chdir(stage)
    assert stages_folder(Path()) == stage.with_name("1-first.stages")


def test_changed_images_are_named_and_refused_or_forced(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    root, recipe = photos(), tiny(tmp_path / "photos", epochs=1)
    run = train(recipe, run=tmp_path / "run", progress=False)
    training = [name for name, facts in json.loads((run / "images.json").read_text()).items() if facts[2] == "train"]
    gone, masked, painted = training[:3]
    for part in ("images", "masks"):
        shutil.copy(root / part / f"{masked}.png", root / part / "extra.png")
        (root / part / f"{gone}.png").unlink()
    for name, part in ((masked, "masks"), (painted, "images")):
        array = np.array(Image.open(root / part / f"{name}.png"))
        array[:4, :4] = 1 - array[:4, :4] % 2
        Image.fromarray(array).save(root / part / f"{name}.png")
    sides = json.loads((run / "split.json").read_text())
    said = (
        rf"1 new \(extra\); 1 gone \({gone}\); 1 with another picture \({painted}\); 1 with another mask \({masked}\)"
    )
    more = ["training.epochs=2"]
    with pytest.raises(RunError, match=said):
        train(recipe, run=run, resume=True, changes=more, progress=False)
    train(recipe, run=run, resume=True, changes=more, force=True, progress=False)
    assert [row["epoch"] for row in rows_of(run)] == [1, 2]
    sides["train"].remove(gone)
    assert json.loads((run / "split.json").read_text()) == sides
    evaluate(run, progress=False)
    train(recipe, run=run, resume=True, progress=False)


def test_an_image_that_changed_sides_is_named(unbroken: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, whole = unbroken
    run = shutil.copytree(whole, tmp_path / "run")
    sides = json.loads((run / "split.json").read_text())
    sides["train"].append(sides["val"].pop())
    (run / "split.json").write_text(json.dumps(sides))
    with pytest.raises(RunError, match=rf"on another side of the split \({sides['train'][-1]}\)"):
        train(recipe, run=run, resume=True, progress=False)


def test_a_damaged_state_is_named(unbroken: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, whole_run = unbroken
    run = shutil.copytree(whole_run, tmp_path / "run")
    with pytest.raises(RecipeError, match="epohcs"):
        train(recipe, run=run, resume=True, changes=["training.epohcs=3"], progress=False)
    whole = (run / "resume.ckpt").read_bytes()
    (run / "resume.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"resume.ckpt: is damaged.*starts again"):
        train(recipe, run=run, resume=True, progress=False)


def test_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    for name in (".bundle.abc.part/x", ".bundle.old/bundle.json", "scores/val.json", "scores/.val.json.1.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / ".resume.ckpt.xyz.part").write_text("half")
    tidy(tmp_path)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["bundle/bundle.json", "scores/val.json"]
    (tmp_path / ".bundle.old").mkdir()
    tidy(tmp_path)
    assert (tmp_path / "bundle").exists()
    assert not (tmp_path / ".bundle.old").exists()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from segwright.training.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="another process"), locked(tmp_path):
            pass
        child.kill()
        child.wait()
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()


@pytest.mark.usefixtures("save_always")
@pytest.mark.parametrize("name", ["resume.ckpt", "metrics.jsonl", "log.txt", "bundle"])
def test_a_full_disk_ends_a_run_in_one_line_and_loses_nothing(
    unbroken: tuple[Recipe, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recipe, whole = unbroken
    with monkeypatch.context() as patch:
        fill_disk(patch, name)
        with pytest.raises(OutputError, match=rf"{name}.*No space left.*go on \(segwright train .*--resume\)") as error:
            train(recipe, run=tmp_path / "run", progress=False)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run").glob(".*.part"))
    run = train(recipe, run=tmp_path / "run", resume=True, progress=False)
    assert_same(run, whole)


def fill_disk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a file fail to be written as on a full disk, some time after the beginning."""
    written = []

    def is_full(path: object) -> bool:
        written.extend([path] if name in str(path) else [])
        return name in str(path) and len(written) > {"log.txt": 5}.get(name, 1)

    mkstemp, save_file, fsync = tempfile.mkstemp, bundle.save_file, os.fsync

    def to_full_device(**words: Path | str) -> tuple[int, str]:
        handle, path = mkstemp(**words)
        if name == "resume.ckpt" and is_full(path):
            os.close(handle)
            handle = os.open("/dev/full", os.O_WRONLY)
        return handle, path

    def save(state: object, path: Path, metadata: object) -> None:
        if is_full(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save_file(state, path, metadata=metadata)

    def sync(handle: int) -> None:
        if name in ("metrics.jsonl", "log.txt") and is_full(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(tempfile, "mkstemp", to_full_device)
    monkeypatch.setattr(bundle, "save_file", save)
    monkeypatch.setattr(os, "fsync", sync)
