"""Fuzz every reader of files for some minutes: broken files must be refused in one line, never crash or hang.

    python tests/endurance/fuzz.py --minutes 30                 all targets, time divided among them
    python tests/endurance/fuzz.py --target mask --minutes 2
    python tests/endurance/fuzz.py --engine mutation            where atheris is not installed

With atheris (https://github.com/google/atheris, coverage-guided; Python 3.11) where it is installed, else by chance
changes of valid files. A finding is kept as `tests/fuzz_findings/<target>/<digest>`, which the tests feed again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

HERE = Path(__file__).parent
FINDINGS = HERE.parent / "fuzz_findings"
SLOW_SECONDS = 10
MEMORY_MIB = 6000
WORDS = (
    b"null", b"true", b"nan", b".inf", b"-1", b"1e999", b"99999999999999999999", b"[]", b"{}", b"'", b'"', b"\n", b": ",
    b"!!python/object/apply:os.system ['true']", b"&a [*a]", b"../", b"/etc/passwd", b"\x00", b"\xff\xfe",
    "é\u2028".encode(), b"=1+1", b"<script>", b"2001-02-30", b"255", b"256", b"%s", b",", b"\r", b"a" * 300,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", help="one reader; all of them where none is named")
    parser.add_argument("--minutes", type=float, default=30, help="in all")
    parser.add_argument("--engine", choices=["auto", "atheris", "mutation"], default="auto")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # this process fuzzes
    options = parser.parse_args()
    engine = options.engine
    if engine == "auto":
        engine = "atheris" if importlib.util.find_spec("atheris") else "mutation"
    if options.one:
        {"atheris": with_atheris, "mutation": by_mutation}[engine](options.target, seconds=60 * options.minutes)
        return
    all_of_them(options.target, engine=engine, minutes=options.minutes)


def all_of_them(target: str | None, *, engine: str, minutes: float) -> None:
    from fuzz_targets import TARGETS
    from segwright.files import write_json

    names = [target] if target else list(TARGETS)
    rows: list[dict[str, Any]] = []
    for name in names:
        before = set(FINDINGS.glob(f"{name}/*"))
        started = time.monotonic()
        words = [sys.executable, __file__, "--one", "--target", name, "--engine", engine]
        words += ["--minutes", str(minutes / len(names))]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        output = done.stdout + done.stderr
        runs = [int(number) for number in re.findall(r"(?:Done|#)\s?(\d+)", output)]
        row = {
            "target": name, "engine": engine, "seconds": round(time.monotonic() - started, 1),
            "inputs": max(runs, default=0), "findings": len(set(FINDINGS.glob(f"{name}/*")) - before),
            "exit": done.returncode,
        }  # fmt: skip
        rows.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if row["findings"] or done.returncode not in (0, 77):
            print(output[-3000:], flush=True)
    write_json(HERE / "results" / "fuzz.json", {"minutes": minutes, "targets": rows})


def keep(target: str, data: bytes, error: BaseException | str) -> None:
    folder = FINDINGS / target
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    print(f"finding {path}: {type(error).__name__}: {error}", flush=True)


def kind_of(error: BaseException) -> tuple[str, ...]:
    """Where an error comes from, so that one fault is kept once."""
    places, trace = [], error.__traceback__
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return (
        type(error).__name__,
        places[-1] if places else "",
        next((p for p in reversed(places) if "segwright" in p), ""),
    )


class Watch:
    """Feeds one target, keeps each kind of finding once, and inputs that take too long."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.seen: set[tuple[str, ...]] = set()
        self.inputs = 0

    def __call__(self, data: bytes) -> None:
        from fuzz_targets import fault

        self.inputs += 1
        started = time.monotonic()
        error = fault(self.target, data)
        if time.monotonic() - started > SLOW_SECONDS:
            error = TimeoutError(f"{time.monotonic() - started:.0f} s")
        if error is not None and kind_of(error) not in self.seen:
            self.seen.add(kind_of(error))
            keep(self.target, data, error)


def with_atheris(target: str, *, seconds: float) -> None:
    import atheris

    with atheris.instrument_imports(include=["segwright", "yaml", "json", "csv", "PIL", "numpy.lib"]):
        from fuzz_targets import TARGETS
    warnings.simplefilter("ignore")
    watch = Watch(target)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(TARGETS[target].seeds()):
            Path(corpus, f"seed{number}").write_bytes(seed)
        words = Path(corpus).with_suffix(".dict")
        words.write_text("\n".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in WORDS))
        arguments = [
            sys.argv[0], corpus, f"-max_total_time={max(1, round(seconds))}", "-max_len=8192", f"-dict={words}",
            f"-timeout={3 * SLOW_SECONDS}", f"-rss_limit_mb={MEMORY_MIB}",
            f"-artifact_prefix={FINDINGS}/{target}/crash-",
        ]  # fmt: skip
        (FINDINGS / target).mkdir(parents=True, exist_ok=True)
        atheris.Setup(arguments, watch)
        atheris.Fuzz()


def by_mutation(target: str, *, seconds: float) -> None:
    from fuzz_targets import TARGETS

    warnings.simplefilter("ignore")
    watch, chance = Watch(target), random.Random(0)
    pool = TARGETS[target].seeds()
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        watch(mutated(chance.choice(pool), chance))
    print(f"Done {watch.inputs}")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few chance changes: flipped bits, other bytes, cuts, doubles, words."""
    raw = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        place = chance.randrange(len(raw) + 1)
        match chance.randrange(6):
            case 0 if place < len(raw):
                raw[place] ^= 1 << chance.randrange(8)
            case 1 if place < len(raw):
                raw[place] = chance.randrange(256)
            case 2:
                del raw[place : place + chance.choice((1, 2, 4, 40))]
            case 3:
                raw[place:place] = raw[place : place + chance.choice((1, 8, 60))]
            case 4:
                raw[place:place] = chance.choice(WORDS)
            case _:
                raw[place : place + 4] = chance.choice((0, 1, 255, 2**31, 2**32 - 1)).to_bytes(
                    4, chance.choice(("big", "little"))
                )
    return bytes(raw)


if __name__ == "__main__":
    main()
