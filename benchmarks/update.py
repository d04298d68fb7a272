"""What an update costs beside what Copier itself must do for one, and how many files an answer changes.

    python benchmarks/update.py [--rounds 5]

Copier updates by rendering three times: the old version, the new one into the project, and the new one apart. So the
floor is three bare renders, ``copier copy --skip-tasks`` into fresh folders. Each round times an update and three
renders, turn about, so that a slow moment of the machine falls on both. The update changes one answer (``license``)
and runs with ``--skip-tasks``: without the environment and the suite, which benchmarks/time_to_green.py measures.

Read the ratio first: update / three renders, the median of all rounds, which should not exceed 1.15. One pair before
the rounds warms the caches and is not counted. Then comes a table of the files that each changed answer touches. The
template is a clean, tagged clone of this checkout: commit what is to be measured. The exit status is 0 whatever the
ratio: this is a measurement, not a test. How many conflicts the whole proof has, `pytest -m "slow or not slow"
tests/test_updates.py` says in its last lines.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from time_to_green import make_template, run

GOAL = 1.15
PLAIN = ("--defaults", "--quiet", "--skip-tasks")


def commit(project: Path) -> None:
    """Commit everything in a project."""
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--allow-empty", "--message", "Start")):
        run("git", *words, cwd=project)


def render(template: Path, project: Path) -> float:
    """Time a bare render."""
    return run("copier", "copy", *PLAIN, template, project, cwd=project.parent)


def update(project: Path, answer: str) -> float:
    """Time an update that changes one answer."""
    return run("copier", "update", "--trust", *PLAIN, "--data", answer, cwd=project)


def measure(template: Path, folder: Path, rounds: int) -> list[tuple[float, float]]:
    """Time pairs, turn about, after one pair that is not counted."""
    pairs = []
    project = folder / "myapp"
    render(template, project)
    commit(project)
    for number in range(rounds + 1):
        taken = {}
        for side in ("update", "renders") if number % 2 else ("renders", "update"):
            if side == "update":
                taken[side] = update(project, "license=MIT")
                run("git", "reset", "--quiet", "--hard", cwd=project)
                run("git", "clean", "--quiet", "--force", "-d", cwd=project)
            else:
                taken[side] = sum(render(template, folder / f"floor-{copy}") for copy in range(3))
                for copy in range(3):
                    shutil.rmtree(folder / f"floor-{copy}")
        if number:
            pairs.append((taken["update"], taken["renders"]))
            ours, floor = pairs[-1]
            print(
                f"round {number}: update {ours:5.2f} s, three renders {floor:5.2f} s, ratio {ours / floor:.2f}",
                flush=True,
            )
    return pairs


def changes(template: Path, project: Path) -> Iterator[tuple[str, int]]:
    """Count the files that one changed answer touches, for each answer that can be counted."""
    questions: dict[str, dict[str, Any]] = yaml.safe_load((template / "copier.yml").read_text("utf-8"))
    given = yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))
    for name, question in questions.items():
        if name not in given or name.startswith("_"):
            continue
        choices = question.get("choices") or ([True, False] if question["type"] == "bool" else [])
        for value in choices.values() if isinstance(choices, dict) else choices:
            if value != given[name]:
                update(project, f"{name}={str(value).lower() if value in (True, False) else value}")
                words = ["git", "status", "--porcelain", "--untracked-files=all"]
                listed = subprocess.run(words, cwd=project, capture_output=True, text=True, check=True).stdout
                yield f"{name}: {given[name]} to {value}", len(listed.splitlines())
                run("git", "reset", "--quiet", "--hard", cwd=project)
                run("git", "clean", "--quiet", "--force", "-d", cwd=project)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="pairs to measure (default: 5)")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("at least one round")
    missing = [command for command in ("copier", "git") if not shutil.which(command)]
    if missing:
        parser.error(f"{', '.join(missing)} not on the PATH: try `uv run python benchmarks/update.py`")

    with tempfile.TemporaryDirectory(prefix="update-") as name:
        folder = Path(name).resolve()
        (folder / "gitconfig").write_text("[user]\nname = Ada Lovelace\nemail = ada@example.com\n")
        (folder / "settings.yml").write_text("{}\n")
        for lead_away in ("CI", "PYTHONDONTWRITEBYTECODE"):
            os.environ.pop(lead_away, None)
        os.environ.update(
            GIT_CONFIG_GLOBAL=str(folder / "gitconfig"), COPIER_SETTINGS_PATH=str(folder / "settings.yml")
        )
        template = make_template(folder)
        ratios = sorted(ours / floor for ours, floor in measure(template, folder, rounds))
        middle = median(ratios)
        verdict = "met" if middle <= GOAL else "missed"
        print(f"\nratio {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); the goal of {GOAL} or less is {verdict}\n")
        print(f"{'one changed answer':<44}{'files':>6}")
        for change, files in changes(template, folder / "myapp"):
            print(f"{change:<44}{files:>6}", flush=True)


if __name__ == "__main__":
    main()
