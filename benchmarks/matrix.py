"""What it costs to prove a pair of answers: seconds a case, its parts, and how the whole grows.

    python benchmarks/matrix.py [--cases 8]

It runs cases of tests/test_pairs.py, which lie far apart, first half of them and then all with one worker, then all
with as many workers as there are cores. A run before that warms the caches of uv and mypy and is not counted. Each row
gives the wall time, the seconds of one core for a case, and the ratio of the wall time to that of half the cases or of
one worker: 2 for twice the cases and 0.5 for two workers would be straight lines.

Read the parts first: seconds of one core for each, processes that the case starts included, which do not depend on
what else the machine does as much as wall time. A case should take no more than 6 on a warm cache. The first case of
each Python, which makes the environment and compiles the packages, is cold: it stands in a line of its own, and in the
seconds of the rows. The exit status is 0 whatever comes out, as long as the cases pass: this is a measurement, not a
test. It wants what the tests want, as ``uv run python benchmarks/matrix.py`` has it, and databases for the cases that
use a server.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

GOAL = 6.0
ROOT = Path(__file__).resolve().parents[1]
FILE = "tests/test_pairs.py"


class Collected:
    """A plugin of pytest that keeps what is to be run, and the Python of each case."""

    def __init__(self) -> None:
        self.pythons: dict[str, str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep the names of the cases."""
        for item in session.items:
            if isinstance(item, pytest.Function):
                answers: Any = item.callspec.params["answers"]
                self.pythons[item.nodeid] = answers["python_version"]


class Measured:
    """A plugin of pytest that keeps the parts of each case, from whichever process."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the parts of a case that passed."""
        if report.when == "call" and report.passed:
            self.parts[report.nodeid] = dict(report.user_properties)["parts"]


def run(plugin: Any, *options: str) -> float:
    """Run pytest without its output, and return the seconds that it took."""
    start = time.perf_counter()
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
        status = pytest.main(["-q", "-m", "slow or not slow", *options], plugins=[plugin])
    if status:
        sys.exit(f"The cases do not pass: pytest -m 'slow or not slow' {FILE}")
    return time.perf_counter() - start


def measure(names: list[str], workers: int) -> tuple[float, dict[str, dict[str, float]]]:
    """Prove some cases: the wall time, and the parts of each that could be tried on this machine."""
    measured = Measured()
    taken = run(measured, f"--numprocesses={workers}", *names)
    return taken, measured.parts


def spread(names: list[str], count: int) -> list[str]:
    """Choose so many, as far apart as they can be."""
    return [names[number * len(names) // count] for number in range(count)]


def show(part: str, seconds: list[float]) -> None:
    """Print a line of the second table."""
    print(f"{part:<10}{mean(seconds):>8.2f}{min(seconds):>8.2f}{max(seconds):>8.2f}")


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=8, help="how many cases to prove, at least 2 (default: 8)")
    cases = parser.parse_args().cases
    os.chdir(ROOT)
    collected = Collected()
    run(collected, "--collect-only", "--numprocesses=0", FILE)
    pythons = collected.pythons
    if not 2 <= cases <= len(pythons):
        parser.error(f"from 2 to {len(pythons)} cases")
    names = spread([*pythons], cases // 2 * 2)
    cores = len(os.sched_getaffinity(0))

    _taken, tried = measure(names, cores)
    if len(tried) <= len({pythons[name] for name in tried}):
        sys.exit("Each case would be the first of its Python, and cold: ask for more --cases")
    print(f"{'cases':>5}{'workers':>9}{'wall s':>9}{'core s a case':>15}{'ratio':>8}", flush=True)
    before = None
    cold: list[dict[str, float]] = []
    warm: list[dict[str, float]] = []
    for count, workers in ((len(names) // 2, 1), (len(names), 1), (len(names), cores)):
        taken, found = measure(spread(names, count), workers)
        seconds = mean(sum(parts.values()) for parts in found.values())
        print(f"{count:>5}{workers:>9}{taken:>9.1f}{seconds:>15.1f}{taken / (before or taken):>8.2f}", flush=True)
        before = taken
        if workers == 1:
            first = {pythons[name]: name for name in reversed(found)}.values()
            for name, parts in found.items():
                (cold if name in first else warm).append(parts)

    print(f"\n{'part':<10}{'core s':>8}{'least':>8}{'most':>8}")
    for part in warm[0]:
        show(part, [case[part] for case in warm])
    whole = [sum(case.values()) for case in warm]
    show("case", whole)
    show("cold", [sum(case.values()) for case in cold])
    verdict = "met" if mean(whole) <= GOAL else "missed"
    print(f"The goal of {GOAL:.0f} or less for a case is {verdict}.")


if __name__ == "__main__":
    main()
