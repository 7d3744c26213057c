"""Launchers by name, as the command line has them. Ray is imported when it is asked for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from segwright.errors import RunError, nearest
from segwright.launch import Launcher
from segwright.launch.local import LocalLauncher
from segwright.launch.slurm import SlurmLauncher

LauncherName = Literal["local", "slurm", "ray"]


def launcher_of(
    name: LauncherName,
    *,
    folder: Path,
    jobs: int | None = None,
    gpus: Sequence[int] = (),
    slurm_options: Sequence[str] = (),
    ray_address: str | None = None,
) -> Launcher:
    """The launcher of that name.

    Args:
        name: local, slurm or ray.
        folder: of the study; Slurm's scripts go into `launch/` there.
        jobs: how many at a time; None: two here, and as many as there is room for on a cluster.
        gpus: numbers of this machine's GPUs that may be used, of the local launcher.
        slurm_options: lines for `#SBATCH`, such as `--partition=gpu`.
        ray_address: of a cluster that is there; None: `RAY_ADDRESS`, or else one that is started here.

    Raises:
        RunError: there is no such launcher, or no such cluster.
        MissingExtraError: Ray is not installed.
    """
    if name == "local":
        return LocalLauncher(jobs=jobs or 2, gpus=gpus)
    if name == "slurm":
        return SlurmLauncher(folder / "launch", options=slurm_options, at_once=jobs)
    if name == "ray":
        room = importlib.import_module("segwright.launch.ray")
        launcher: Launcher = room.RayLauncher(ray_address or os.environ.get("RAY_ADDRESS") or None, cpus=jobs)
        return launcher
    raise RunError(f"unknown launcher '{name}'", mend=nearest(name, get_args(LauncherName)))
