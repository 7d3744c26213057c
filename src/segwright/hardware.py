"""What the machine can do: the device to compute on and the number format that is fast there.

bfloat16 keeps the range of float32 (no loss scaling) and is fast where the hardware multiplies it: GPUs from Ampere
on, and CPUs with AVX512-BF16 or AMX. Older GPUs take float16, which needs loss scaling in training; everything else
stays in float32.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from segwright.errors import RecipeError

Precision = Literal["bf16", "fp16", "fp32"]
PrecisionChoice = Literal["auto", "bf16", "fp16", "fp32"]

_DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes the first GPU, else the CPU.

    Raises:
        RecipeError: the name is none, or that device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RecipeError(f"device '{name}' is unknown", mend="use auto, cpu, cuda, cuda:1 or mps") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        raise RecipeError(f"device '{name}' is not on this machine", mend="use auto or cpu")
    return device


def choose_precision(name: PrecisionChoice, *, device: torch.device) -> Precision:
    """The number format of that name; `auto` takes the fastest that is safe on the device.

    Raises:
        RecipeError: fp16 was asked for on a device that is slow and unsafe with it.
    """
    if name == "fp16" and device.type == "cpu":
        raise RecipeError("fp16 is not for CPUs", mend="use bf16, fp32 or auto")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    return "bf16" if device.type == "cpu" and cpu_is_fast_with_bf16() else "fp32"


def cpu_is_fast_with_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX512-BF16 or AMX) rather than by conversion."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch gives it no types
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and bool(check()) for check in checks)


def autocast(precision: Precision, *, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a network computes at that precision."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def available_memory_bytes() -> int:
    """Main memory that can still be taken without swapping: what the system has left, or the container's limit.

    A container's limit is that of its control group (version 2 or 1); cached files count as free there, as they do in
    the system's own figure. Where nothing is known, half of the memory that is built in.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        left = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        left = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return min([left, *(_left_in_group(Path(root), *names) for root, *names in _CONTROL_GROUPS)])


def _left_in_group(root: Path, limit: str, used: str, cached: str) -> int:
    try:
        most, now = (int((root / name).read_text(encoding="ascii")) for name in (limit, used))
        facts = dict(line.split() for line in (root / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, most - now + int(facts[cached]))
    except (OSError, ValueError, KeyError):  # no such group, or no limit ("max")
        return sys.maxsize


_CONTROL_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the CPU or of the device is not enough, in whatever words."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = (
    "can't allocate memory", "not enough memory: you tried to allocate", "out of memory", "std::bad_alloc",
    "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED", "could not create a primitive",
    "could not create a memory",
)  # fmt: skip
"""Of PyTorch's allocators on Linux, Windows and GPUs, of C++, cuDNN and cuBLAS; the last two are oneDNN's, which
computes on CPUs and hardly ever says so for another reason."""


def keep_freed_memory() -> None:
    """Let the C library keep freed memory instead of returning it to the system after every tensor.

    glibc maps each block above 32 MiB afresh, so that a CPU training touches gigabytes of new pages a step; without
    that, 40 % more images a second were seen. Does nothing where the C library has no `mallopt`; calling it twice is
    harmless.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def give_back_freed_memory() -> None:
    """Return what the C library and the GPU's allocator keep for later: where the memory is short, others need it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def describe(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, for the record of a run."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": {name: version(name) for name in _RECORDED},
    }


_RECORDED = (
    "segwright",
    "torch",
    "lightning",
    "segmentation-models-pytorch",
    "timm",
    "numpy",
    "opencv-python-headless",
)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
