"""What has been proven, in figures: noted by the tests, kept from run to run, printed at the end of each.

The tests note what they prove by ``record_property``. The notes hold for one state of the template and its tests: they
are kept under a hash of both. With ``REQUIRE_PROOF`` set, ``pytest -m slow`` fails where something is not proven that
could be proven on this machine. ``python tests/proof.py`` makes ``docs/proof.md`` of the figures. Given the notes of
several machines, it prints the figures of all together, and fails where something is not proven by any.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

ROOT = Path(__file__).resolve().parents[1]
NOTES = ROOT / ".pytest_cache" / "proof.json"
PAGE = ROOT / "docs" / "proof.md"
TEXT = """# The proof

Counted by the tests of this repository. `.ci/run` counts again on each change, and fails where something is missing.

| What | How much |
|---|---|
{figures}

| Kind of test | Tests | Seconds each |
|---|---|---|
{times}

| Part of a pair's project | Seconds of one core |
|---|---|
{parts}
"""


def state() -> str:
    """A hash of what the proof is about, and of the proof."""
    digest = hashlib.sha256()
    for place in ("copier.yml", "template", "hooks", "tests"):
        for path in sorted([ROOT / place, *(ROOT / place).rglob("*")]):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def kept(file: Path = NOTES) -> dict[str, dict[str, Any]]:
    """What is proven of this state: by kind, by test, the notes and the seconds that it took."""
    try:
        read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(read["notes"]) if read["state"] == state() else {}


def together(runs: Iterable[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What several runs have proven, the last word about a test being the last run's."""
    notes: dict[str, dict[str, Any]] = {}
    for run in runs:
        for kind, entries in run.items():
            notes.setdefault(kind, {}).update(entries)
    return notes


class Notary:
    """A plugin of pytest that keeps what passing tests note, in whichever process they ran."""

    def __init__(self) -> None:
        self.fresh: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        self.missing: list[str] = []

    def pytest_sessionstart(self) -> None:
        """Read what there is to prove, before somebody edits the tests while they run."""
        Figures({})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the notes of a test that passed."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.when == "call" and report.passed:
            for kind, note in report.user_properties:
                entries = self.fresh.setdefault(kind, {})
                entry = entries.setdefault(report.nodeid, {"notes": [], "seconds": self.seconds[report.nodeid]})
                entry["notes"].append(note)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Add them to those of earlier runs; where the proof is required, the slow tests end it."""
        self.notes = together([kept(), self.fresh])
        if self.fresh:
            NOTES.parent.mkdir(exist_ok=True)
            NOTES.write_text(json.dumps({"state": state(), "notes": self.notes}), encoding="utf-8")
        option = session.config.option
        if os.environ.get("REQUIRE_PROOF") and option.markexpr == "slow" and not option.collectonly:
            from conftest import has_python

            figures = Figures(self.notes)
            self.missing = figures.missing([case for case in figures.cases if has_python(case["python_version"])])
        if self.missing and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Say what is proven so far, and what should be."""
        if self.fresh:
            terminalreporter.section("proven so far")
            for what, proven in Figures(self.notes).proven().items():
                terminalreporter.write_line(f"{what}: {proven}")
        for what in self.missing:
            terminalreporter.write_line(f"not proven: {what}", red=True)


def pairs(cases: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """The pairs of answers that some cases try."""
    return {pair for case in cases for pair in combinations(sorted(case.items()), 2)}


def rows(lines: Iterable[Iterable[object]]) -> str:
    """The lines of a table."""
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


class Figures:
    """What could be proven, and what is."""

    def __init__(self, notes: dict[str, dict[str, Any]]) -> None:
        from test_files import COMBINATIONS
        from test_mutations import MUTATIONS
        from test_pairs import CASES

        self.notes = notes
        self.combinations, self.mutations = COMBINATIONS, MUTATIONS
        self.cases: list[dict[str, Any]] = CASES

    def of(self, kind: str) -> list[Any]:
        """The notes of a kind."""
        return [note for entry in self.notes.get(kind, {}).values() for note in entry["notes"]]

    def made(self) -> set[str]:
        """The combinations of answers that were rendered and looked at."""
        return set().union(*self.of("combinations"))

    def possible(self) -> dict[str, int]:
        """What there is to be proven, which any machine can count."""
        from conftest import QUESTIONS

        return {
            "Questions": len(QUESTIONS),
            "Combinations of the answers that can be counted, each rendered, parsed, linted": len(self.combinations),
            "Pairs of answers, each rendered, installed, run and tested": len(pairs(self.cases)),
            "Projects that hold them": len(self.cases),
            "Faults planted in the template, each noticed": len(self.mutations),
        }

    def proven(self) -> dict[str, str]:
        """What is proven so far, of what there is."""
        done = (len(self.made()), len(pairs(self.of("case"))), len(self.of("case")), len(self.of("fault")))
        counted = dict(zip(list(self.possible())[1:], done, strict=True))
        versions = sorted({case["python_version"] for case in self.of("case")})
        return {
            **{what: f"{counted.get(what, number)} of {number}" for what, number in self.possible().items()},
            "Pythons": ", ".join(versions),
            "Updates": self.updates(),
        }

    def updates(self) -> str:
        """How many updates went well, and of what kinds."""
        if not (notes := self.of("update")):
            return "0"
        before, after, edited, changed, conflicts = zip(*notes, strict=True)
        return (
            f"{len(notes)}, from {len(set(before))} versions to {len(set(after))}, "
            f"{sum(edited)} with an owner's edits, {sum(map(bool, changed))} with a changed answer; "
            f"{sum(map(len, conflicts))} files in conflict, each declared with its reason"
        )

    def missing(self, cases: list[dict[str, Any]]) -> list[str]:
        """What is not proven, where these are the cases that could be."""
        found = [f"the pair {pair}" for pair in sorted(pairs(cases) - pairs(self.of("case")), key=str)]
        found += [f"the fault {name!r}" for name in self.mutations if name not in self.of("fault")]
        if unmade := len(self.combinations) - len(self.made()):
            found.append(f"{unmade} combinations")
        return found

    def page(self) -> str:
        """The figures as a page."""
        times = [
            (kind, len(notes), f"{mean(entry['seconds'] for entry in notes.values()):.1f}")
            for kind, notes in sorted(self.notes.items())
            if kind != "parts"
        ]
        cases = self.of("parts")
        parts = [(part, f"{mean(case[part] for case in cases):.1f}") for part in (cases[0] if cases else ())]
        return TEXT.format(figures=rows(self.proven().items()), times=rows(times), parts=rows(parts))


if __name__ == "__main__":
    if files := sys.argv[1:]:
        figures = Figures(together(kept(Path(file)) for file in files))
        print(figures.page())
        # One of the machines has each Python.
        if missing := figures.missing(figures.cases):
            sys.exit("\n".join(f"not proven: {what}" for what in missing))
    else:
        PAGE.write_text(Figures(kept()).page(), encoding="utf-8")
