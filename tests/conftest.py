"""How a project is made in the tests: rendered alone, or with everything that a person's copy does."""

import os
import shutil
import signal
import subprocess
import tomllib
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from allpairspy import AllPairs
from plumbum import local
from proof import Notary

ROOT = Path(__file__).resolve().parents[1]
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
QUESTIONS: dict[str, dict[str, Any]] = {
    name: question
    for name, question in CONFIG.items()
    if not name.startswith("_") and question.get("when", True) is not False
}
pytest_plugins = ("plugins.quick", "questionnaire", "projects", "shards")
collect_ignore = ["owner", "plugins"]
# For the suites of projects that run by the dozen.
QUICK: dict[str, Any] = {"PYTEST_ADDOPTS": "-p quick", "PYTHONPATH": str(ROOT / "tests" / "plugins")}
Render = Callable[..., Path]


def pytest_configure(config: pytest.Config) -> None:
    """Keep what the tests prove, in the process that hears of all of them."""
    # In the background of a script Ctrl-C is ignored, by whatever is started there too; the tests press it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or thousands of commands would compile the same packages
    os.environ.pop("UV_PROJECT_ENVIRONMENT", None)  # or a project's `uv sync` would replace what the tests run in
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Notary())


def pytest_xdist_auto_num_workers() -> int:
    """Two processes a core: the tests wait half of their time, for servers, terminals and what they start."""
    return 2 * (os.cpu_count() or 1)


def values(name: str) -> list[Any]:
    """Every value of a question whose values can be counted; for free text, none."""
    question = QUESTIONS[name]
    if question["type"] == "bool":
        return [True, False]
    choices = question.get("choices", [])
    return list(choices.values() if isinstance(choices, dict) else choices)


COUNTABLE = {name: values(name) for name in QUESTIONS if values(name)}
PYTHONS: list[str] = COUNTABLE["python_version"]
# The least and the most that can be asked for, on the oldest Python.
NOTHING = (False, "none")
OFF = {
    name: next((answer for answer in answers if answer in NOTHING), answers[0]) for name, answers in COUNTABLE.items()
}
ON = {name: [answer for answer in answers if answer not in NOTHING][-1] for name, answers in COUNTABLE.items()}
ON["python_version"] = OFF["python_version"]


def every_pair() -> list[dict[str, Any]]:
    """A short list of answers in which each pair of values of two questions occurs: the least, the most, the others."""
    known = [OFF, ON]
    others = AllPairs(OrderedDict(COUNTABLE), previously_tested=[[*case.values()] for case in known])
    return [*known, *(case._asdict() for case in others)]


def checked(answers: Mapping[str, Any]) -> dict[str, Any]:
    """The answers, once it is certain that each is to a question: Copier accepts misspelt ones in silence."""
    unknown = answers.keys() - QUESTIONS.keys()
    assert not unknown, f"copier.yml does not ask for {sorted(unknown)}"
    return dict(answers)


def describe(answers: Mapping[str, Any]) -> str:
    """A short name for a test case."""
    return "-".join(f"{name}={value}" for name, value in answers.items()) or "defaults"


def run(*command: str | Path, cwd: Path, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person would, in a folder, and show what it printed where it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    assert not check or done.returncode == 0, f"{command} exits {done.returncode}:\n{done.stdout}"
    return done


@cache
def has_python(version: str) -> bool:
    """Whether this machine has a Python of that version."""
    return not run("uv", "python", "find", "--offline", version, cwd=ROOT, check=False).returncode


def once(target: Path, make: Callable[[Path], object]) -> Path:
    """Make a folder once for all processes: the first that is ready wins."""
    if not target.exists():
        draft = target.with_name(f"{target.name}-{uuid.uuid4().hex}")
        draft.mkdir(parents=True)
        make(draft)
        try:
            draft.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(draft)
    return target


def working_copy(template: Path, folder: Path) -> None:
    """Copy this checkout as it stands, with the history that the tests of updates read."""
    run("git", "clone", "--quiet", ROOT, folder, cwd=ROOT)
    shutil.copytree(template, folder, ignore=shutil.ignore_patterns(".git"), dirs_exist_ok=True)


@pytest.fixture(autouse=True)
def own_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give each test an identity for git, and none of this machine's settings."""
    for name in list(os.environ):
        if name.startswith(("COPIER_", "FLASK_", "GIT_", "PYTEST_XDIST")) or name in {
            "CI",
            "DATABASE_URL",
            "NO_COLOR",
            "TEST_DATABASE_URL",
            "VIRTUAL_ENV",
        }:
            monkeypatch.delenv(name)
    base = tmp_path_factory.getbasetemp()
    # Pytests that share a folder trip over what another is tidying there.
    monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", str(base))
    config = base / "gitconfig"
    if not config.exists():
        config.write_text("[user]\nname = Ada Lovelace\nemail = ada@example.com\n[init]\ndefaultBranch = main\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    settings = config.with_name("copier-settings.yml")
    settings.write_text("{}\n")
    monkeypatch.setenv("COPIER_SETTINGS_PATH", str(settings))
    with local.env():  # what Copier, called in this process, runs its commands in: a copy that it took at its import
        local.env.clear()
        local.env.update(os.environ)
        yield


@pytest.fixture(autouse=True)
def types(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, worker_id: str) -> Iterator[None]:
    """Keep what mypy learns of the packages, most of its work, for the next test, the other workers and the next run.

    Each worker has a cache of its own, because mypy reads what another one writes; it begins with a copy of the first.
    """
    files: pytest.Cache | None = getattr(request.config, "cache", None)
    if not files or "MYPY_CACHE_DIR" in os.environ:  # of a run around this one
        yield
        return
    kept = files.mkdir("mypy")
    first, own = kept / "first", kept / worker_id

    def copy_missing(source: Path, target: Path) -> None:
        for version in source.glob("3.??"):
            once(target / version.name, partial(shutil.copytree, version, dirs_exist_ok=True))

    copy_missing(first, own)
    monkeypatch.setenv("MYPY_CACHE_DIR", str(own))
    yield
    copy_missing(own, first)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout as it stands, in a clean repository of its own with a tag, as people get it."""
    clone = tmp_path_factory.mktemp("template") / "flask-starter"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    git = ("git", "-c", "user.name=Ada Lovelace", "-c", "user.email=ada@example.com")
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "Release"), ("tag", f"v{VERSION}")):
        run(*git, *command, cwd=clone)
    return clone


@pytest.fixture
def render(template: Path, tmp_path: Path) -> Render:
    """Write a project without running its tasks: ``render(folder="myapp", database="none")``."""

    def render(folder: str = "myapp", **answers: Any) -> Path:
        project = tmp_path / folder
        copier.run_copy(str(template), project, data=checked(answers), defaults=True, skip_tasks=True, quiet=True)
        return project

    return render
