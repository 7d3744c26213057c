"""One model trained by several processes, each on its own share of every batch, to the result of one process.

Data parallelism as in Li 2020, https://arxiv.org/abs/2006.15704, by Lightning's DDP (gloo on CPUs, NCCL on GPUs):

    batches    those of one process, parted among the processes (data/loader.py); `training.batch_size` is that of all
    loss       a function of sums over pixels, which are added up over the processes first: the very loss of the whole
               batch, also with class weights, void pixels and Dice, so that the gradient is that of one process (a loss
               that is none, as `lovasz`, is averaged over the processes)
    norms      on GPUs over the whole batch (SyncBatchNorm, https://arxiv.org/abs/1711.07240); on CPUs each process
               normalises by its own share, and the running statistics are averaged after every step: that is the one
               difference to a single process, beside dropout and rounding
    counts     confusion counts are int64 and added up: a validation is that of one process to the last pixel
    decisions  process 0 reads the clock and decides; the others are told, so that they never disagree

Process 0 alone writes and speaks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, final

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.distributed_c10d import ProcessGroup

from segwright.errors import RecipeError
from segwright.models import SegmentationModel

Devices = int | Literal["auto"]
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Which of several processes this one is, as torchrun or SLURM says.

    Attributes:
        rank: 0 leads.
        size: how many there are.
        local_rank: which of those on this machine.
        host, port: where process 0 can be met.
    """

    rank: int
    size: int
    local_rank: int
    host: str
    port: int


def find_place(devices: Devices) -> Place | None:
    """The place of this process among those that torchrun or `srun` started; None where it is alone.

    Args:
        devices: 1 trains alone whatever was started around it; another number must be that of the processes.

    Raises:
        RecipeError: another number of processes was started than asked for.
    """
    if devices == 1:
        return None
    # torchrun may itself be a task of SLURM: what it says is nearer.
    place = _torchrun() if all(name in os.environ for name in _TORCHRUN) else _slurm()
    if place is None or place.size == 1:
        return None
    if devices not in ("auto", place.size):
        raise RecipeError(
            f"training.devices = {devices}, but {place.size} processes were started",
            mend="leave training.devices at auto under torchrun and srun",
        )
    return place


_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def _torchrun() -> Place:
    rank, size, local_rank, host, port = (os.environ[name] for name in _TORCHRUN)
    return Place(int(rank), int(size), int(local_rank), host, int(port))


def _slurm() -> Place | None:
    """Of a step that `srun` started; what `sbatch` alone starts is one process, however many tasks it asked for."""
    known = os.environ
    if "SLURM_STEP_NUM_TASKS" not in known:
        return None
    size = int(known["SLURM_STEP_NUM_TASKS"])
    first = SLURMEnvironment.resolve_root_node_address(known.get("SLURM_STEP_NODELIST", "127.0.0.1"))
    # Every process finds the same port, and the steps of a job different ones.
    job, step = (int(known.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    port = int(known.get("MASTER_PORT", 15000 + (job + 97 * step) % 10000))
    return Place(int(known["SLURM_PROCID"]), size, int(known["SLURM_LOCALID"]), known.get("MASTER_ADDR", first), port)


@final
class Team:
    """The processes of one run, as one of them sees it. All of them must call a method for it to return.

    Args:
        rank: of this process; 0 leads.
        size: how many there are.
        control: a group that talks over the network from host to host, so that no agreement waits for a GPU.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, control: ProcessGroup | None = None) -> None:
        self.rank, self.size, self._control = rank, size, control

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def agreed(self, value: float) -> float:
        """The value of process 0, for all."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(told, src=0, group=self._control)
        return float(told)

    def decided(self, wish: bool) -> bool:
        """What process 0 wishes, for all."""
        return bool(self.agreed(float(wish)))

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all processes; its gradient passes back to each, as DDP's averaging will need it."""
        if self.size == 1:
            return tensor
        total: Tensor = _Sum.apply(tensor, self.size)
        return total

    def everyone(self, thing: T) -> list[T]:
        """What each process has, by rank."""
        if self.size == 1:
            return [thing]
        things: list[Any] = [None] * self.size
        dist.all_gather_object(things, thing, group=self._control)
        return things

    def copy_buffers(self, module: nn.Module) -> None:
        """Give all processes the buffers of process 0; DDP copies parameters only."""
        for buffer in module.buffers() if self.size > 1 else ():
            dist.broadcast(buffer, src=0)

    def average_statistics(self, model: nn.Module) -> None:
        """Make the running statistics of batch norms their mean over all processes; a SyncBatchNorm has them equal."""
        if self.size == 1:
            return
        norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d) and part.training]
        own = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
        if not own:
            return
        flat = torch.cat(own)
        dist.all_reduce(flat)
        for value, mean in zip(own, torch.split(flat / self.size, [len(value) for value in own]), strict=True):
            value.copy_(mean)


ALONE = Team()


class _Sum(torch.autograd.Function):
    """A sum over processes. DDP divides gradients by the number of processes: here they are multiplied by it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, size: int) -> Tensor:
        ctx.size = size
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.size, None


def backend_of(device: torch.device) -> Literal["nccl", "gloo"]:
    """What processes on such devices talk through."""
    return "nccl" if device.type == "cuda" else "gloo"


def strategy_of(
    team: Team, model: SegmentationModel, *, crop_px: tuple[int, int], resting: bool = False
) -> DDPStrategy | Literal["auto"]:
    """How Lightning trains: with DDP where there are several processes.

    Args:
        team: the processes.
        model: on the CPU.
        crop_px: rows and columns that it is trained on.
        resting: some parameters get no gradient until later.
    """
    if team.size == 1:
        return "auto"
    # Buffers are looked after by `Team`: in a validation the processes do not step together.
    return DDPStrategy(
        cluster_environment=_Met(team.rank),
        find_unused_parameters=resting or _has_idle_parts(model, crop_px),
        broadcast_buffers=False,
    )


def _has_idle_parts(model: SegmentationModel, crop_px: tuple[int, int]) -> bool:
    """Whether some parameters have no part in the result, as in some encoders; DDP would wait for their gradients."""
    model.eval()
    # The network alone trains, not its parts: all its heads answer, while no statistics move and nothing is dropped.
    model.net.training = True
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        # Not as a call, which would compile a compiled model for the CPU.
        answer = model.forward(torch.zeros(1, model.spec.in_channels, *crop_px, dtype=torch.uint8))
    model.eval()
    heads = answer if isinstance(answer, tuple) else (answer,)
    total = torch.stack([head.sum() for head in heads]).sum()
    return any(gradient is None for gradient in torch.autograd.grad(total, parameters, allow_unused=True))


@final
class _Met(ClusterEnvironment):
    """Tells Lightning that the processes have met already.

    It is told of one process each: with more, Lightning itself agrees on SIGTERM, which waits for the device at every
    step and hangs when a single process gets the signal. `Team` agrees on all stops instead.
    """

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise AssertionError("the process group is there already")

    @property
    def main_port(self) -> int:
        raise AssertionError("the process group is there already")

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return 1

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self._rank
