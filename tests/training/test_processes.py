"""Who trains along, and that two processes train the model of one: the heavy part starts a second process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from segwright.bundle import load_bundle
from segwright.confusion import confusion_per_image
from segwright.data.eval_loader import EvalLoader
from segwright.errors import RecipeError, TrainingError
from segwright.metrics import score
from segwright.models import ModelSpec, build_model
from segwright.recipe import Recipe
from segwright.training.follow import _asked
from segwright.training.meeting import Gathering, _let_go, device_at, gathering, meet, part_of
from segwright.training.preparation import prepare
from segwright.training.processes import ALONE, Place, Team, find_place, strategy_of
from segwright.training.run import train
from segwright.training.stages import train_in_stages

Tiny = Callable[..., Recipe]
Folder = Callable[..., Path]
CPU = torch.device("cpu")


def torchrun(patch: pytest.MonkeyPatch, *, rank: int, size: int) -> None:
    known = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank % 2, "MASTER_ADDR": "node1", "MASTER_PORT": 29500}
    for name, value in known.items():
        patch.setenv(name, str(value))


@pytest.fixture(autouse=True)
def _started_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


def test_a_process_that_nobody_started_is_alone() -> None:
    assert find_place("auto") is None
    assert find_place(4) is None


def test_torchrun_tells_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun(monkeypatch, rank=3, size=4)
    assert find_place("auto") == find_place(4) == Place(3, 4, 1, "node1", 29500)
    assert find_place(1) is None
    with pytest.raises(RecipeError, match=r"training.devices = 2, but 4 processes were started"):
        find_place(2)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert find_place("auto") is None


def test_a_step_of_slurm_tells_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "SLURM_STEP_NUM_TASKS": 6, "SLURM_STEP_NODELIST": "gpu[07-09,12]", "SLURM_PROCID": 4, "SLURM_LOCALID": 1,
        "SLURM_JOB_ID": 123456, "SLURM_STEP_ID": 2,
    }  # fmt: skip
    for name, value in known.items():
        monkeypatch.setenv(name, str(value))
    assert find_place("auto") == Place(4, 6, 1, "gpu07", 15000 + (123456 + 194) % 10000)
    with monkeypatch.context() as patch:
        torchrun(patch, rank=0, size=1)
        assert find_place("auto") is None, "torchrun within a task of SLURM counts"
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    monkeypatch.setenv("SLURM_NTASKS", "6")
    assert find_place("auto") is None, "sbatch alone starts one process"


def test_more_devices_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with (
        pytest.raises(RecipeError, match=r"training.devices = 3, but there are 2 processor cores"),
        gathering(3, device=CPU),
    ):
        pass
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert device_at(1, device=torch.device("cuda")) == torch.device("cuda:1")
    with pytest.raises(RecipeError, match="has no GPU, there are 2"):
        device_at(2, device=torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert device_at(3, device=torch.device("cuda")) == torch.device("cuda:0")


def test_one_process_agrees_with_itself() -> None:
    with gathering("auto", device=CPU) as group:
        assert group.begin(Path("unused"), orders={}) is ALONE
    counts = torch.arange(4)
    assert ALONE.summed(counts) is counts
    assert ALONE.agreed(0.1) == 0.1
    assert not ALONE.decided(False)
    assert ALONE.everyone("me") == ["me"]


@pytest.mark.parametrize("idle", [False, True])
def test_parts_that_no_image_passes_are_found(idle: bool) -> None:
    spec = ModelSpec("unet", in_channels=1, num_classes=2, arguments={"width": 2, "depth": 2}, mean=(0.5,), std=(0.2,))
    model = build_model(spec)
    if idle:
        model.net.register_parameter("left_over", torch.nn.Parameter(torch.zeros(3)))
    strategy = strategy_of(Team(0, 2), model, crop_px=(16, 16))
    assert strategy != "auto"
    assert strategy._ddp_kwargs["find_unused_parameters"] is idle
    assert strategy_of(ALONE, model, crop_px=(16, 16)) == "auto"


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Gathering:
    """Two processes, of which the second one ends at once with code 3."""
    group = Gathering(2, device=CPU)
    plain = subprocess.Popen

    def broken(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        assert command[-1] == "segwright.training.follow"
        return plain([sys.executable, "-c", "raise SystemExit(3)"], **options)

    monkeypatch.setattr(subprocess, "Popen", broken)
    return group


def test_a_process_that_cannot_begin_ends_the_run(group: Gathering, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    with pytest.raises(TrainingError, match=r"process 1 of 2 failed \(exit code 3\)"):
        group.begin(tmp_path, orders={})
    group.end(at_once=True)
    assert torch.get_num_threads() == threads


def test_a_process_that_is_lost_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segwright.training.meeting.LOST_SECONDS", 0.2)
    store = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=5), wait_for_workers=False)
    group = Gathering(3, device=CPU, store=store)
    cut = RuntimeError("[pair.cc:561] Connection closed by peer [10.0.0.2]:21927")
    assert group.explain(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert "another process of this run is gone" in str(group.explain(cut))
    store.set("failed/2", json.dumps({"problem": "the memory is not enough", "mend": "use smaller batches"}))
    assert str(group.explain(cut)) == "process 2 of 3 failed: the memory is not enough. Use smaller batches."


def test_those_that_wait_for_a_run_are_told_that_none_will_come() -> None:
    store = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=5), wait_for_workers=False)
    first, second = (part_of(store, run=number) for number in (0, 1))
    first.set("run", "runs/night")
    assert _asked(first, "run") == "runs/night"
    _let_go(store)
    assert _asked(first, "go") is None
    store.add("runs", 1)
    _let_go(store)
    assert _asked(second, "run") is None


def test_two_processes_train_the_model_of_one(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    parts = {"model": {"arguments": {"width": 4, "depth": 2, "norm": "group"}}, "data": {"split": {"val": 0.3}}}
    root = photos(16)
    runs, states = [], []
    for devices in (1, 2):
        recipe = tiny(root, epochs=3, training={"devices": devices, "batch_size": 5}, **parts)
        runs.append(train(recipe, run=tmp_path / f"run{devices}", progress=False))
        states.append(torch.load(runs[-1] / "resume.ckpt", weights_only=True)["state_dict"])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=1e-5, msg=lambda text, name=name: name + text)
    assert "on cpu, fp32, in 2 processes\n" in (runs[1] / "log.txt").read_text()

    images, bundle = prepare(recipe, run=runs[1], progress=False), load_bundle(runs[1])
    row = json.loads((runs[1] / "metrics.jsonl").read_text().splitlines()[bundle.info["epoch"] - 1])
    loader = EvalLoader(images.pack, images.indices("val"), batch_size=5)
    with torch.inference_mode():
        counts = sum(
            confusion_per_image(bundle.model(batch.images).argmax(1), batch.masks, num_classes=2).sum(0)
            for batch in loader
        )
    assert int(counts.sum()) == loader.count * 32 * 32
    assert row["val_iou"] == score(counts.numpy(), images.classes).iou.tolist()


def test_processes_that_were_started_together_take_part_in_all_stages(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"model": {"arguments": {"width": 4, "depth": 2, "norm": "group"}}, "optimizer": {"lr": 0.005}}
    stage = {"name": "first", "training": {"epochs": 1, "keep": "last"}, "loss": {"formula": "ce"}}
    recipe = tiny(photos(), epochs=1, training={"ema": 0.0}, **parts).model_copy(update={"stages": (stage,)})
    alone = train_in_stages(recipe, run=tmp_path / "alone", progress=False)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    other = subprocess.Popen(
        [sys.executable, "-P", "-m", "segwright.training.follow"],
        env={
            **os.environ,
            **where,
            "RANK": "1",
            "LOCAL_RANK": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        stdin=subprocess.PIPE,
    )
    for name, value in {**where, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    try:
        both = train_in_stages(recipe, run=tmp_path / "both", progress=False)
        assert other.wait(60) == 0
        with pytest.raises(TrainingError, match="the other processes have left"), gathering("auto", device=CPU):
            pass
    finally:
        other.kill()
        other.communicate()
        meet.cache_clear()
    first, second = (torch.load(run / "resume.ckpt", weights_only=True)["state_dict"] for run in (alone, both))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-4, msg=lambda text, name=name: name + text)
    for log in (tmp_path / "both.stages" / "1-first" / "log.txt", both / "log.txt"):
        assert "on cpu, fp32, in 2 processes\n" in log.read_text()
