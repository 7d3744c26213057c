"""What every test stands on: one thread a process, no network, a cache of its own, and shapes that are checked.

The environment is set before torch or segwright is imported, because both read it once.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile

os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    SEGWRIGHT_OFFLINE="1",
    MPLBACKEND="Agg",
    NO_COLOR="1",
    TERM="dumb",
    COLUMNS="120",
)
os.environ.pop("SEGWRIGHT_CACHE", None)
_CACHE = tempfile.TemporaryDirectory(prefix="segwright-tests-")
os.environ["SEGWRIGHT_CACHE"] = _CACHE.name

from types import ModuleType  # noqa: E402  # all of these come after the environment
from typing import Any  # noqa: E402

from beartype import BeartypeConf, beartype  # noqa: E402
from beartype.roar import BeartypeDecorHintPep673Exception  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

_TYPES_AS_MYPY_SEES_THEM = BeartypeConf(is_pep484_tower=True)  # an int is a float


def _checked(function: Any) -> Any:
    """Check shapes and types on every call; a method that returns `Self` can only be checked with its class."""
    try:
        return beartype(conf=_TYPES_AS_MYPY_SEES_THEM)(function)
    except BeartypeDecorHintPep673Exception:
        return function


# The hook wants the checker by the name of a module.
sys.modules["segwright_shape_check"] = ModuleType("segwright_shape_check")
sys.modules["segwright_shape_check"].checked = _checked  # type: ignore[attr-defined]
if "segwright" not in sys.modules:
    install_import_hook("segwright", "segwright_shape_check.checked")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

torch.set_num_threads(1)

# Shared machines stall now and then: a deadline would measure the neighbours.
settings.register_profile("house", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _same_chance_for_every_test() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _signals_as_on_a_terminal() -> None:
    """Where the tests run in the background or under nohup, signals come ignored, and would stay so."""
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_DFL),
    ):  # fmt: skip
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
