"""What both hooks share: a report with one line for each stage, and the stages that both have.

There is only the standard library, on the Python that runs Copier.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

WINDOWS = os.name == "nt"
BIN = Path(".venv", "Scripts" if WINDOWS else "bin")
PYTHON = BIN / "python"
RED, GREEN, YELLOW = 31, 32, 33

# The errors of uv that pip may not have: pip reads the configuration of the system, and takes the Python that it is
# started with.
UV_CANNOT = r"failed to (fetch|download)|no interpreter found|incompatible with the project's python"
# Variables that would lead our commands out of the project, to another database, or to another outcome.
LEADS_AWAY = re.compile(
    r"GIT_(?!AUTHOR_|COMMITTER_|CONFIG_|EXEC_PATH).*|PYTHON(?!_|DONTWRITEBYTECODE|PYCACHEPREFIX).*|PYTHON_GIL"
    r"|PYTEST_.*|COV(ERAGE|_CORE)_.*|TEST_DATABASE_URL|WERKZEUG_.*"
    r"|UV_(PROJECT.*|WORKING_DIR.*|FROZEN|LOCKED|NO_(DEV|GROUP|DEFAULT_GROUPS|EDITABLE|INSTALL_.*|BUILD_ISOLATION.*))"
    r"|PIP_(TARGET|PREFIX|ROOT|PYTHON|DRY_RUN|NO_DEPS|NO_BUILD_ISOLATION|REQUIREMENT|EDITABLE|QUIET)|FORCE_COLOR|CLICOLOR_FORCE"
)


def in_ci() -> bool:
    """Tell whether a machine reads the result."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def environment(**extra: str) -> dict[str, str]:
    """The variables for our commands."""
    return {**{name: value for name, value in os.environ.items() if not LEADS_AWAY.fullmatch(name)}, **extra}


class NotDone(Exception):
    """A stage that was not done: why, and the commands that do it later."""

    word, colour = "not done", YELLOW

    def __init__(self, why: str, *later: str) -> None:
        super().__init__(why)
        self.later = later


class TestsFailed(NotDone):
    """The project's suite is red: pytest's summary, and the command that runs it again."""

    word, colour = "FAILED", RED


class Interrupted(Exception):
    """A person has had enough."""


class Report:
    """What a person reads, the log that holds the rest, and the steps that are still to do."""

    def __init__(self) -> None:
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may lack our characters
        self.colour = sys.stdout.isatty() and not WINDOWS and not os.environ.get("NO_COLOR")
        descriptor, name = tempfile.mkstemp(prefix="flask-starter-", suffix=".log")
        os.close(descriptor)
        self.log = Path(name)
        self.log_matters = False
        self.current = ""
        self.todo: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.interrupted = False
        signal.signal(signal.SIGINT, self.interrupt)

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """End what runs, at once: a quarter of a second after Ctrl-C, Copier kills us."""
        self.interrupted = True
        if self.process:
            self.process.kill()

    def say(self, text: str = "", end: str = "\n") -> None:
        """Print at once, so that nothing looks hung."""
        try:
            print(text, end=end, flush=True)
        except OSError:  # nobody reads any more, as after `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def paint(self, text: str, colour: int) -> str:
        """Colour text where that can be seen and was not refused (https://no-color.org)."""
        return f"\033[{colour}m{text}\033[0m" if self.colour else text

    def stage(self, name: str, work: Callable[[], str]) -> bool:
        """Do a stage on one line: its name at the start, its outcome and its seconds at the end."""
        self.current = name
        self.say(f"  {name:<12} ", end="")
        start = time.monotonic()
        done = False
        try:
            outcome = self.paint(work(), GREEN)
            done = True
        except NotDone as problem:
            outcome = self.paint(f"{problem.word}: {problem}", problem.colour)
            self.todo += problem.later
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
            try:
                self.process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(**extra)
                )
                if self.interrupted:  # while it started
                    self.process.kill()
                status = self.process.wait()
            except OSError as error:
                log.write(f"error: {error}\n")
                status = 127
            if self.interrupted:
                raise Interrupted
            log.seek(start)
            return subprocess.CompletedProcess(words, status, log.read().strip())

    def trouble(self, failed: subprocess.CompletedProcess[str], *later: str) -> NotDone:
        """Return a failure with the tool's own error, the root cause if it names one, and the log."""
        self.log_matters = True
        lines = failed.stdout.splitlines() or [f"{failed.args[0]} exits {failed.returncode}"]
        why = next((line for line in lines if re.match(r"\W*(error|fatal)", line, re.IGNORECASE)), lines[-1]).strip()
        causes = re.findall(r"^ *(?:cause|caused by|[├╰]─▶):? (.+)", failed.stdout, re.MULTILINE | re.IGNORECASE)
        return NotDone(f"{': '.join([why, *causes[-1:]])} (log: {self.log})", *later)

    def tail(self, lines: int = 25) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])


def find_python(report: Report, version: str) -> str | None:
    """Find a Python that is new enough and can make environments."""
    minor = int(version.partition(".")[2])
    check = f"import sys, venv, ensurepip; sys.exit(sys.version_info < (3, {minor}))"
    for name in ("python3", "python", *(f"python3.{n}" for n in range(minor, minor + 10)), sys.executable):
        if report.run(name, "-c", check).returncode == 0:
            return name
    return None


def install_with_pip(report: Report, *make: str | Path) -> subprocess.CompletedProcess[str]:
    """Make an environment, and install the project and its tools into it."""
    made = report.run(*make)
    for wanted in (["pip>=25.1"], ["--editable", ".", "--group", "dev"]):  # the first pip with --group
        if made.returncode == 0:
            made = report.run(PYTHON, "-m", "pip", "install", "--retries=1", *wanted, PIP_USER="0")
    return made


def make_environment(report: Report, version: str, *, again: bool = False) -> str:
    """Install the project and its tools, with uv or else with pip; ``again`` is into the environment that is there."""
    by_pip = again and made_by_pip()
    uv = None if by_pip else shutil.which("uv")
    later: tuple[str, ...] = ("uv sync",)
    python = None
    if not uv:
        python = None if by_pip else find_python(report, version)
        uv = None if by_pip else shutil.which("uv", path=str(Path(sys.executable).parent))
        new = (
            f"{shlex.quote(python or f'python{version}')} -m venv .venv",
            f"{PYTHON} -m pip install --upgrade pip",
        )
        later = (*(() if by_pip else new), f"{PYTHON} -m pip install --editable . --group dev")
    breaks = re.search(rf"[{os.pathsep}\r\n]", str(Path.cwd()))
    if breaks:  # entries of PATH, and lines of the file that points to src/
        raise NotDone(f"no environment works in a folder with {breaks[0]!r} in its path: rename the folder", *later)
    for name in () if again else (".venv", "uv.lock"):
        if os.path.lexists(name):
            raise NotDone(f"{name} was here before, and stays as it is", *later)

    if uv:
        for parent in Path.cwd().parents:
            with suppress(OSError, UnicodeDecodeError):
                metadata = (parent / "pyproject.toml").read_text("utf-8")
                if re.search(r"^(\[tool\.uv\.workspace|workspace *=)", metadata, re.MULTILINE):
                    raise NotDone(f"uv would change the workspace in {parent}", *later)
        made = report.run(uv, "sync")
    elif by_pip:
        made = install_with_pip(report, PYTHON, "--version")
    elif python:
        made = install_with_pip(report, python, "-m", "venv", ".venv")
    else:
        running = ".".join(map(str, sys.version_info[:3]))
        raise NotDone(f"no Python {version} or newer with venv was found (Copier runs on {running})", *later)
    if made.returncode == 0:
        return f"installed with {'uv' if uv else 'pip'}"

    problem = report.trouble(made, *later)
    if uv and not again and re.search(UV_CANNOT, made.stdout, re.IGNORECASE):
        python = find_python(report, version)
        if python and install_with_pip(report, python, "-m", "venv", "--clear", ".venv").returncode == 0:
            return f"installed with pip, because uv failed: {problem}"
        shutil.rmtree(".venv", ignore_errors=True)  # half made, and ours: there was none
    raise problem


def made_by_pip() -> bool:
    """Tell whether there is an environment that was made without uv."""
    with suppress(OSError):
        return not re.search(r"^uv =", Path(".venv", "pyvenv.cfg").read_text("utf-8"), re.MULTILINE)
    return False


def command_prefix() -> str:
    """Return what stands before the project's commands: ``uv run`` only where uv made the environment, or may."""
    return "uv run " if shutil.which("uv") and not made_by_pip() else f"{BIN}{os.sep}"


def run_tests(report: Report, installed: bool, again: str) -> str:
    """Run the project's own suite."""
    if not installed:
        raise NotDone("the environment comes first", again)
    tested = report.run(PYTHON, "-m", "pytest", "--quiet", "--color=no")
    last = (tested.stdout.splitlines() or [f"exit {tested.returncode}"])[-1]
    summary = re.sub(r" in ([\d.]+)s.*", lambda taken: f" in {float(taken[1]):.1f} s", last)
    if tested.returncode:
        raise TestsFailed(summary, again)
    return summary


def change_folder() -> list[str]:
    """The ``cd`` from where the person stands, if it takes one."""
    way = Path.cwd()
    with suppress(ValueError):
        way = way.relative_to(Path(os.environ.get("PWD", os.devnull)).resolve())
    if way == Path():
        return []
    words = ["cd", f".{os.sep}{way}" if str(way).startswith("-") else str(way)]
    return [subprocess.list2cmdline(words) if WINDOWS else shlex.join(words)]


def conduct(stages: Callable[[Report], int], complete: str, stopped: int) -> int:
    """Do the stages, until they are done or a person has had enough; the exit status."""
    report = Report()
    try:
        status = stages(report)
    except Interrupted:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient person's second one must not be our status
        where = f" at the stage {report.current}" if report.current else ""
        report.say(f"\nStopped{where}. {complete}")
        status = stopped
    except Exception as error:
        report.log_matters = True
        with suppress(OSError), report.log.open("a", encoding="utf-8", errors="replace") as log:
            traceback.print_exc(file=log)
        where = f" at the stage {report.current}" if report.current else ""
        report.say(f"\nStopped{where} by an unexpected error: {error!r} (log: {report.log}). {complete}")
        status = int(bool(stopped))
    if not report.log_matters:
        with suppress(OSError):
            report.log.unlink()
    return status
