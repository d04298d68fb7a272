"""How long a stranger waits for a tested project, beside the least that it could take by hand.

    python benchmarks/time_to_green.py [--rounds 5]

Each round makes two projects with the default answers in fresh folders, turn about, so that a slow moment of the
machine falls on both:

template
    ``copier copy --trust --defaults`` to its end: render, environment, tests, git.
by hand
    the floor: the same render with ``--skip-tasks``, then ``uv sync``, then ``pytest -q`` in the new environment.
    It makes no repository, which the template's side does.

Read the ratio first: template / by hand of each pair, and its median, which should not exceed 1.15. Both sides do
the same work on the same machine, so it says what the template's own machinery costs, on any machine. Then read the
stages: where the template's column is larger, its hook could be quicker; where both are large, the project could be
(fewer files, fewer dependencies, quicker tests). "rest" is what lies between the stages and after them: starting
processes, Copier's end. Seconds alone say more about the machine than about the template.

One pair goes before the rounds and is not counted: it warms the caches of uv and of the file system. The template is
a clean, tagged clone of this checkout: commit what is to be measured. The exit status is 0 whatever the ratio: this
is a measurement, not a test. It takes the standard library, and ``copier``, ``uv`` and ``git`` on the PATH, as
``uv run python benchmarks/time_to_green.py`` has them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
GOAL = 1.15
STAGES = ("render", "environment", "tests", "git", "rest")
TOTAL = "total"
Seconds = dict[str, float]


def run(*command: str | Path, cwd: Path) -> float:
    """Run a command that must succeed, and time it; into a file as the hook does, so that no reader slows it down."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        status = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output).returncode
        taken = time.perf_counter() - start
        if status:
            output.seek(0)
            sys.exit(f"{command} exits {status}:\n{output.read().decode(errors='replace')}")
    return taken


def make_template(folder: Path) -> Path:
    """Clone this checkout, with one tag, as a release has."""
    clone = folder / "flask-starter"
    run("git", "clone", "--quiet", "--no-tags", ROOT, clone, cwd=folder)
    run("git", "tag", "v1.0.0", cwd=clone)
    return clone


def by_template(template: Path, project: Path) -> Seconds:
    """Time one command, and its stages by when their lines begin and end."""
    start = time.perf_counter()
    process = subprocess.Popen(
        ["copier", "copy", "--trust", "--defaults", template, project],
        cwd=project.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout
    seconds: Seconds = {}
    printed = ""
    began = {}
    while chunk := os.read(process.stdout.fileno(), 4096):
        printed += chunk.decode(errors="replace")
        now = time.perf_counter() - start
        for stage in ("environment", "tests", "git"):
            if stage not in began and re.search(rf"^  {stage} ", printed, re.MULTILINE):
                began[stage] = now
            if stage not in seconds and re.search(rf"^  {stage} .*\(\d+\.\d s\)$", printed, re.MULTILINE):
                seconds[stage] = now - began[stage]
    status = process.wait()
    total = time.perf_counter() - start
    if status or "passed" not in printed or seconds.keys() != {"environment", "tests", "git"} or "not done" in printed:
        sys.exit(f"copier exits {status}, without all of its stages done:\n{printed}")
    render = began["environment"]
    return {"render": render, **seconds, "rest": total - render - sum(seconds.values()), TOTAL: total}


def by_hand(template: Path, project: Path) -> Seconds:
    """Time the commands that a person would type, one after the other."""
    scripts = project / ".venv" / ("Scripts" if os.name == "nt" else "bin")
    start = time.perf_counter()
    render = run("copier", "copy", "--skip-tasks", "--defaults", template, project, cwd=project.parent)
    environment = run("uv", "sync", cwd=project)
    tests = run(scripts / "python", "-m", "pytest", "-q", cwd=project)
    total = time.perf_counter() - start
    seconds = {"render": render, "environment": environment, "tests": tests}
    return {**seconds, "rest": total - sum(seconds.values()), TOTAL: total}


def measure(rounds: int) -> list[tuple[Seconds, Seconds]]:
    """Make pairs of projects, turn about, after one pair that is not counted."""
    pairs = []
    with tempfile.TemporaryDirectory(prefix="time-to-green-") as name:
        folder = Path(name).resolve()
        # Nobody's settings but ours, and no stage left out for lack of an identity. Where Python may not write its
        # bytecode, as in many containers, each process compiles all that it imports: no person's machine does that.
        (folder / "gitconfig").write_text("[user]\nname = Ada Lovelace\nemail = ada@example.com\n")
        (folder / "settings.yml").write_text("{}\n")
        for lead_away in ("CI", "DATABASE_URL", "PYTHONDONTWRITEBYTECODE", "UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV"):
            os.environ.pop(lead_away, None)
        os.environ.update(
            GIT_CONFIG_GLOBAL=str(folder / "gitconfig"), COPIER_SETTINGS_PATH=str(folder / "settings.yml")
        )
        template = make_template(folder)
        for number in range(rounds + 1):
            sides = [by_template, by_hand]
            taken = {}
            for side in sides if number % 2 else reversed(sides):
                project = folder / "myapp"
                taken[side] = side(template, project)
                shutil.rmtree(project)
            if number:
                pairs.append((taken[by_template], taken[by_hand]))
                print(f"round {number}: {ratio(pairs[-1])}", flush=True)
    return pairs


def ratio(pair: tuple[Seconds, Seconds]) -> str:
    """One pair in a line."""
    ours, floor = pair[0][TOTAL], pair[1][TOTAL]
    return f"template {ours:5.2f} s, by hand {floor:5.2f} s, ratio {ours / floor:.2f}"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="pairs to measure (default: 5)")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("at least one round")
    missing = [command for command in ("copier", "uv", "git") if not shutil.which(command)]
    if missing:
        parser.error(f"{', '.join(missing)} not on the PATH: try `uv run python benchmarks/time_to_green.py`")

    pairs = measure(rounds)
    print(f"\n{'median of ' + str(rounds):<14}{'template':>10}{'by hand':>10}{'more':>10}")
    for stage in (*STAGES, TOTAL):
        ours, floor = (median(side.get(stage, 0.0) for side in sides) for sides in zip(*pairs, strict=True))
        more = median(a.get(stage, 0.0) - b.get(stage, 0.0) for a, b in pairs)
        print(f"{stage:<14}{ours:>8.2f} s{floor:>8.2f} s{more:>+8.2f} s")
    ratios = sorted(a[TOTAL] / b[TOTAL] for a, b in pairs)
    middle = median(ratios)
    verdict = "met" if middle <= GOAL else "missed"
    print(f"\nratio {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); the goal of {GOAL} or less is {verdict}")


if __name__ == "__main__":
    main()
