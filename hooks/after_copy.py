"""What Copier runs once after ``copier copy``: environment, tests, repository.

Nothing here destroys: what was in the folder before stays as it was, and a stage that cannot be done
says why, and which command does it later. There is only the standard library, on the Python that runs
Copier. Copier deletes a new project when this exits non-zero, so it does that only where the project
is kept anyway (``--keep=yes``) or where a machine reads the result (``CI`` is set).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

WINDOWS = os.name == "nt"
BIN = Path(".venv", "Scripts" if WINDOWS else "bin")
PYTHON = BIN / "python"
TEMPLATE = Path(__file__).resolve().parents[1] / "template"
RED, GREEN, YELLOW = 31, 32, 33
FIRST_COMMIT = 'git add --all && git commit -m "Start from flask-starter"'

OFFLINE = r"failed to fetch|dns error|connection refused|name resolution|failed to establish|timed out|offline"
NO_PYTHON = r"no interpreter found|requires a different python|incompatible with the project's python"


class NotDone(Exception):
    """A stage that was not done: why, and the commands that do it later."""

    def __init__(self, why: str, *later: str) -> None:
        super().__init__(why)
        self.later = later


class TestsFailed(Exception):
    """The generated suite is red: with pytest's summary."""


class Interrupted(BaseException):
    """Ctrl-C. No KeyboardInterrupt, for which subprocess would first wait a quarter of a second."""


class Report:
    """What a person reads, the log that holds the rest, and the steps that are still to do."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # for a terminal without our characters
        self.colour = sys.stdout.isatty() and not WINDOWS and "NO_COLOR" not in os.environ
        descriptor, name = tempfile.mkstemp(prefix="flask-starter-", suffix=".log")
        os.close(descriptor)
        self.log = Path(name)
        self.current = ""
        self.todo: list[str] = []

    def say(self, text: str = "", end: str = "\n") -> None:
        """Print at once, so that nothing looks hung."""
        print(text, end=end, flush=True)

    def paint(self, text: str, colour: int) -> str:
        """Colour text where that can be seen and was not refused (https://no-color.org)."""
        return f"\033[{colour}m{text}\033[0m" if self.colour else text

    def stage(self, name: str, work: Callable[[Report], str]) -> bool:
        """Do a stage on one line: its name at the start, its outcome and its seconds at the end."""
        self.current = name
        self.say(f"  {name:<12} ", end="")
        start = time.monotonic()
        done = False
        try:
            outcome = self.paint(work(self), GREEN)
            done = True
        except NotDone as problem:
            outcome = self.paint(f"not done: {problem}", YELLOW)
            self.todo += problem.later
        except TestsFailed as failure:
            outcome = self.paint(f"FAILED: {failure}", RED)
        self.say(f"{outcome} ({time.monotonic() - start:.1f} s)")
        self.current = ""
        return done

    def run(self, *command: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project; what it prints goes to the log and into the result."""
        words = [str(word) for word in command]
        with self.log.open("a+", encoding="utf-8", errors="replace") as log:
            log.write(f"$ {shlex.join(words)}\n")
            log.flush()
            start = log.tell()
            status = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(extra)
            ).returncode
            log.seek(start)
            return subprocess.CompletedProcess(words, status, log.read().strip())

    def tail(self, lines: int = 25) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])


def environment(extra: dict[str, str]) -> dict[str, str]:
    """The variables for our commands: without those that would lead them out of the project."""
    lead_away = re.compile(
        r"GIT_(DIR|WORK_TREE|INDEX_FILE|COMMON_DIR|OBJECT_DIRECTORY|NAMESPACE|PREFIX)|PYTEST_.*|COV_CORE_.*"
        r"|VIRTUAL_ENV|PYTHONHOME|PYTHONPATH|UV_PROJECT(_ENVIRONMENT)?|UV_(NO_)?(DEV|GROUP|SYNC)|PIP_(USER|TARGET|PREFIX)"
    )
    kept = {name: value for name, value in os.environ.items() if not lead_away.fullmatch(name)}
    return {**kept, "UV_NO_PROGRESS": "1", **extra}


def find_uv() -> str | None:
    """uv from the PATH, or from where Copier is installed."""
    return shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))


def find_python(version: str) -> str | None:
    """A Python that is new enough, the one that runs Copier first."""
    minor = int(version.partition(".")[2])
    names = [sys.executable, *(f"python3.{n}" for n in range(minor, minor + 5)), "python3", "python"]
    check = f"import sys, venv, ensurepip; sys.exit(sys.version_info < (3, {minor}))"
    for name in names:
        with contextlib.suppress(OSError):
            if subprocess.run([name, "-c", check], capture_output=True).returncode == 0:
                return name
    return None


def held_before(package: str, answers_file: str) -> Iterator[Path]:
    """The files of the project's folder that Copier did not just write."""
    rendered = {"package_name": package, "_copier_conf.answers_file": answers_file}
    ours = {
        Path(re.sub(r"\[% .*? %\]|\.jinja$", "", re.sub(r"\[\[ (\S+) \]\]", lambda m: rendered[m[1]], str(name))))
        for name in (path.relative_to(TEMPLATE) for path in TEMPLATE.rglob("*"))
    }
    written = Path(answers_file).stat().st_mtime
    for path in Path().rglob("*"):
        # A minute is more than rendering takes: what is older was kept when Copier asked.
        if not path.is_dir() and (path not in ours or path.lstat().st_mtime < written - 60):
            yield path


def make_environment(report: Report, version: str) -> str:
    """Install the project and its tools, with uv or else with pip."""
    uv = find_uv()
    by_pip = (
        f"python{version} -m venv .venv",
        f"{PYTHON} -m pip install --upgrade pip",
        f"{PYTHON} -m pip install --editable . --group dev",
    )
    later = ("uv sync",) if shutil.which("uv") else by_pip
    for name in (".venv", "uv.lock"):
        if os.path.lexists(name):
            raise NotDone(f"{name} was here before, and stays as it is", *later)
    for parent in Path.cwd().parents:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if "[tool.uv.workspace]" in (parent / "pyproject.toml").read_text("utf-8"):
                raise NotDone(f"the folder is inside the uv workspace {parent}", *later)

    if uv:
        made = report.run(uv, "sync", "--project", ".")
    else:
        python = find_python(version)
        if not python:
            running = ".".join(map(str, sys.version_info[:3]))
            raise NotDone(f"no Python {version} or newer was found (Copier runs on {running})", *later)
        made = report.run(python, "-m", "venv", ".venv")
        pip = (PYTHON, "-m", "pip", "install", "--retries", "1")
        for wanted in (("--upgrade", "pip"), ("--editable", ".", "--group", "dev")):
            if made.returncode == 0:
                made = report.run(*pip, *wanted)
    if made.returncode == 0:
        return "installed with uv" if uv else "installed with pip"

    if re.search(NO_PYTHON, made.stdout, re.IGNORECASE):
        raise NotDone(f"no Python {version} or newer was found", *later)
    if re.search(OFFLINE, made.stdout, re.IGNORECASE):
        raise NotDone("the package index cannot be reached", *later)
    last = made.stdout.splitlines()[-1].strip() if made.stdout else f"exit {made.returncode}"
    raise NotDone(f"{last} (log: {report.log})", *later)


def run_tests(report: Report, installed: bool, again: str) -> str:
    """Run the project's own suite."""
    if not installed:
        raise NotDone("there is no environment", again)
    tested = report.run(PYTHON, "-m", "pytest", "--quiet", "--color=no")
    summary = re.search(r"\d+ (?:passed|failed|error)[^=\n]*$", tested.stdout)
    text = re.sub(r" in (\S+)s$", r" in \1 s", summary[0]) if summary else f"exit {tested.returncode}"
    if tested.returncode:
        raise TestsFailed(text)
    return text


def make_repository(report: Report, before: Path | None) -> str:
    """Make a repository and a first commit, unless something of the owner's would get into it."""
    git = shutil.which("git")
    start = f"git init && {FIRST_COMMIT}"
    if not git:
        raise NotDone("git is not installed", start)
    top = report.run(git, "rev-parse", "--show-toplevel", LC_ALL="C")
    if top.returncode == 0:
        raise NotDone(f"the folder is inside the repository {top.stdout}", FIRST_COMMIT)
    if "not a git repository" not in top.stdout:
        raise NotDone(f"git says: {top.stdout}", start)
    if before:
        raise NotDone(f"the folder held files before, such as {before}: look, then commit", start)
    for role in ("AUTHOR", "COMMITTER"):
        if report.run(git, "-c", "user.useConfigOnly=true", "var", f"GIT_{role}_IDENT").returncode:
            who = 'git config --global user.name "Ada Lovelace"'
            address = "git config --global user.email ada@example.com"
            raise NotDone("git does not know who you are", who, address, start)
    branch = report.run(git, "config", "--get", "init.defaultBranch").stdout or "main"
    for command in (
        ("-c", f"init.defaultBranch={branch}", "init", "--quiet"),
        ("add", "--all"),
        ("-c", "commit.gpgSign=false", "commit", "--quiet", "--no-verify", "--message", "Start from flask-starter"),
    ):
        done = report.run(git, *command)
        if done.returncode:
            raise NotDone(f"git {command[-1]} failed (log: {report.log})", start)
    return f"first commit {report.run(git, 'rev-parse', '--short', 'HEAD').stdout}"


def change_folder() -> list[str]:
    """The ``cd`` from where the person stands, if it takes one."""
    stands = os.environ.get("PWD", "")
    if not os.path.isdir(stands):
        return [f"cd {shlex.quote(os.getcwd())}"]
    way = os.path.relpath(os.getcwd(), os.path.realpath(stands))
    return [] if way == "." else [f"cd {shlex.quote(way)}"]


def main() -> int:
    """Do the stages, and say what is still to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--git", choices=["yes", "no"], required=True)
    parser.add_argument("--keep", choices=["yes", "no"], required=True)
    parser.add_argument("--answers-file", required=True)
    options = parser.parse_args()
    strict = options.keep == "yes" or os.environ.get("CI", "") not in ("", "0", "false")

    report = Report()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise Interrupted

    signal.signal(signal.SIGINT, interrupt)
    try:
        return stages(report, options, strict)
    except Interrupted:
        where = f" ({report.current})" if report.current else ""
        report.say(f"\nStopped{where}. The project is complete: its README says how to set it up and test it.")
        return 130 if strict else 0


def stages(report: Report, options: argparse.Namespace, strict: bool) -> int:
    """Do one stage after the other."""
    report.say()
    before = next(held_before(options.package, options.answers_file), None)
    prefix = "uv run " if shutil.which("uv") else f"{BIN}{os.sep}"
    again = f"{prefix}pytest"

    installed = report.stage("environment", lambda report: make_environment(report, options.python))
    tested = report.stage("tests", lambda report: run_tests(report, installed, again))
    red = installed and not tested
    tail = report.tail()
    if options.git == "yes":
        report.stage("git", lambda report: make_repository(report, before))

    steps = [*change_folder(), *report.todo]
    if red:
        report.say(f"\n{report.paint('The tests fail.', RED)} The project is kept. The end of their log:\n\n{tail}\n")
        report.say(f"All of it:  {report.log}\nRun again:  {again}")
        steps.append(again)
    else:
        steps.append(f"{prefix}flask run --debug")
        report.log.unlink()
    report.say("\nNext:")
    for step in steps:
        report.say(f"  {step}")
    return int(strict and not tested)


if __name__ == "__main__":
    sys.exit(main())
