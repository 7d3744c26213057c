"""Where the runs of a study run, and what each of them needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from segwright.launch import Launcher
from segwright.launch.choosing import LauncherName, launcher_of
from segwright.launch.local import usable_cores


@dataclass(frozen=True)
class Machines:
    """A launcher, and what a run is given there.

    Attributes:
        launcher: local, slurm or ray.
        jobs: runs at a time; None: one a GPU of this machine, else two; on a cluster what it has room for.
        cpus: cores of a run, where the launcher counts them.
        gpus: of a run; None: one where this machine has some.
        slurm_options: lines for `#SBATCH`.
        ray_address: of a cluster that is there.
    """

    launcher: LauncherName = "local"
    jobs: int | None = None
    cpus: int = 1
    gpus: int | None = None
    slurm_options: tuple[str, ...] = ()
    ray_address: str | None = None

    @property
    def at_once(self) -> int:
        """Runs at a time, as far as that can be told beforehand."""
        if self.jobs is not None:
            return self.jobs
        return torch.cuda.device_count() or min(2, usable_cores())

    @property
    def need(self) -> tuple[int, int]:
        """Cores and GPUs of a run."""
        gpus = min(1, torch.cuda.device_count()) if self.gpus is None else self.gpus
        return self.cpus, gpus

    def begin(self, folder: Path) -> Launcher:
        """The launcher of a study.

        Raises:
            RunError: the cluster cannot be reached.
            MissingExtraError: Ray is not installed.
        """
        local = self.launcher == "local"
        return launcher_of(
            self.launcher,
            folder=folder,
            jobs=self.at_once if local else self.jobs,
            gpus=tuple(range(torch.cuda.device_count())) if local else (),
            slurm_options=self.slurm_options,
            ray_address=self.ray_address,
        )
