"""Projects for the tests of updates: rendered once for each set of answers, committed, changed, compared."""

import functools
import hashlib
import json
import os
import shutil
import tomllib
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import copier
import pytest
import yaml
from conftest import QUICK, ROOT, has_python, once, run
from copier._main import Worker
from copier._vcs import clone
from questionnaire import Questionnaire

ANSWERS = Path(".copier-answers.yml")
NEWEST = "v1000.0.0"  # the working tree's tag, newer than any release


def releases() -> dict[str, str]:
    """The versions that this repository has released, and the commit of each; none in a shallow clone."""
    if run("git", "rev-parse", "--is-shallow-repository", cwd=ROOT).stdout.strip() == "true":
        return {}
    log = run("git", "log", "--reverse", "--first-parent", "--format=%H", "--", "pyproject.toml", cwd=ROOT)
    found: dict[str, str] = {}
    for commit in log.stdout.split():
        metadata = run("git", "show", f"{commit}:pyproject.toml", cwd=ROOT).stdout
        found.setdefault("v" + tomllib.loads(metadata)["project"]["version"], commit)
    return found


def make_history(folder: Path) -> None:
    """Clone this repository, tag its releases, and commit the working tree on top."""
    clone = folder / "flask-starter"
    run("git", "clone", "--quiet", "--no-tags", ROOT, clone, cwd=folder)
    for version, commit in releases().items():
        run("git", "tag", version, commit, cwd=clone)
    run("git", "rm", "-r", "--quiet", ".", cwd=clone)
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    run("git", "add", "--all", cwd=clone)
    run("git", "commit", "--quiet", "--allow-empty", "--message", "The working tree", cwd=clone)
    run("git", "tag", NEWEST, cwd=clone)


def commit(project: Path, message: str = "Change") -> None:
    """Commit everything in a project."""
    if not (project / ".git").exists():
        run("git", "init", "--quiet", cwd=project)
    run("git", "add", "--all", cwd=project)
    run("git", "commit", "--quiet", "--allow-empty", "--message", message, cwd=project)


def status(project: Path) -> list[str]:
    """What git has to say, a line for each file."""
    return run("git", "status", "--porcelain", "--untracked-files=all", cwd=project).stdout.splitlines()


def answers(project: Path) -> dict[str, Any]:
    """The answers that a project was written with."""
    written = yaml.safe_load((project / ANSWERS).read_text(encoding="utf-8"))
    return {name: answer for name, answer in written.items() if not name.startswith("_")}


def contents(project: Path) -> dict[str, bytes]:
    """Every file that git does not ignore; of the answers file the answers, and nothing of the lock file."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=project).stdout
    paths = {name for name in filter(None, listed.split("\0")) if os.path.lexists(project / name)}
    found = {name: (project / name).read_bytes() for name in sorted(paths - {"uv.lock"})}
    found[str(ANSWERS)] = json.dumps(answers(project), sort_keys=True).encode()
    return found


def conflicts(project: Path) -> set[str]:
    """The files that are not merged."""
    unmerged = run(
        "git", "-c", "core.safecrlf=false", "diff", "--name-only", "--diff-filter=U", cwd=project
    ).stdout.split()
    return {*unmerged, *(str(path.relative_to(project)) for path in project.rglob("*.rej"))}


OWNER = Path(__file__).with_name("owner")
EDITS: dict[str, Any] = yaml.safe_load((OWNER / "edits.yml").read_text(encoding="utf-8"))


def edit(project: Path, edits: list[dict[str, Any]]) -> None:
    """Change lines as the owner does; a line that is missing is a mistake of ours."""
    for change in edits:
        file = project / change["file"]
        text = file.read_text(encoding="utf-8")
        if change["line"] is None:
            text += change["add"] + "\n"
        else:
            line = change["line"] + "\n"
            at = 0 if text.startswith(line) else text.index(f"\n{line}") + 1
            kept = "" if "instead" in change else line
            text = text[:at] + kept + change.get("instead", change.get("add")) + "\n" + text[at + len(line) :]
        file.write_text(text, encoding="utf-8")


def own(project: Path, *, model: bool) -> None:
    """Make a project somebody's own: their files, their changes to ours, and a file of ours that they do without."""
    shutil.copytree(OWNER / "files", project, dirs_exist_ok=True)
    edit(project, EDITS["files"])
    for name in EDITS["deleted"]:
        (project / name).unlink()
    commit(project, "Begin")
    for old, new in EDITS["renamed"].items():
        (project / old).rename(project / new)
    if model:
        shutil.copytree(OWNER / "model", project, dirs_exist_ok=True)
        edit(project, EDITS["model"])
        if (project / "migrations/versions/tour_guestbook.py").exists():
            migration = project / "migrations/versions/add_product.py"
            migration.write_text(
                migration.read_text().replace("down_revision = None", 'down_revision = "tour_guestbook"')
            )


def missing(project: Path, *, model: bool) -> list[str]:
    """What is missing of the owner's work: lines that are gone, and the files that came back."""
    lost = [name for name in (*EDITS["deleted"], *EDITS["renamed"]) if (project / name).exists()]
    for folder in ("files", "model") if model else ("files",):
        for source in (OWNER / folder).rglob("*"):
            name = source.relative_to(OWNER / folder)
            name = Path(EDITS["renamed"].get(name.parts[0], name.parts[0]), *name.parts[1:])
            if source.is_file() and name.name != "add_product.py":
                lost += [str(name)] * (source.read_bytes() != (project / name).read_bytes())
        for change in EDITS[folder]:
            text = (project / change["file"]).read_text(encoding="utf-8")
            lines = change.get("add", change.get("instead")).splitlines()
            lost += [f"{change['file']}: {line}" for line in lines if f"{line}\n" not in text]
    return lost


def code(project: Path) -> str:
    """A hash of what a project's suite can see: its code and what that needs, and no licence or README."""
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    seen = [metadata["project"]["dependencies"], metadata["dependency-groups"], metadata["tool"]]
    digest = hashlib.sha256(json.dumps(seen).encode())
    for name, content in contents(project).items():
        if name.startswith(("src/", "tests/", "migrations/", "gunicorn.conf.py", ".flaskenv")):
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:20]


def clone_once(url: str, ref: str, location: str) -> str:
    """Clone a version of a template once for all processes, which only read it, and not to where each wants it."""
    return str(once(Path(url).with_name(f"clone of {ref}"), lambda folder: clone(url, ref, str(folder))))


@contextmanager
def rendering() -> Iterator[None]:
    """Save the half of an update that is of no matter here, and overlook the one warning that 0.1.0 costs.

    Copier makes five clones, reads its questions slowly, and asks git with each file for a setting that matters where
    a file can be executed, which none of the template's can.
    """
    with (
        patch("copier._template.clone", clone_once),
        patch("yaml.SafeLoader", yaml.CSafeLoader),
        patch.object(Worker, "_sync_git_index_executable_bit"),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", ".*invalid escape sequence")  # quoted first since Python 3.14
        yield


@functools.cache
def writer(template: Path, version: str) -> Questionnaire:
    """What writes the projects of a version, kept for the next one."""
    return Questionnaire(template, version)


class Projects:
    """Projects of any release with any answers, and their updates."""

    def __init__(self, shared: Path, own: Path, environment: Path, record: Callable[[str, object], None]) -> None:
        self.shared, self.own, self.environment, self.record = shared, own, environment, record
        self.template = once(shared / "history", make_history) / "flask-starter"

    def questions(self, version: str) -> dict[str, Any]:
        """What a version asks."""
        config = yaml.safe_load(run("git", "show", f"{version}:copier.yml", cwd=self.template).stdout)
        return {
            name: question
            for name, question in config.items()
            if not name.startswith("_") and question.get("when", True) is not False
        }

    def fresh(self, version: str = NEWEST, data: Mapping[str, Any] | None = None) -> Path:
        """A project as it is written and committed; never to be changed."""
        if version != NEWEST and version not in releases():
            pytest.skip("a shallow clone knows no releases: git fetch --unshallow")
        data = {"package_name": "myapp", "project_name": "My App", **(data or {})}
        assert data.keys() <= self.questions(version).keys()
        key = hashlib.sha256(json.dumps([version, data], sort_keys=True).encode()).hexdigest()[:20]

        def make(folder: Path) -> None:
            with rendering():
                writer(self.template, version).write(folder / "myapp", **data)
            commit(folder / "myapp", "Start")

        return once(self.shared / key, make) / "myapp"

    def project(self, version: str = NEWEST, data: Mapping[str, Any] | None = None) -> Path:
        """A project to change."""
        return shutil.copytree(self.fresh(version, data), self.own / uuid.uuid4().hex[:8] / "myapp", symlinks=True)

    def update(self, project: Path, version: str = NEWEST, edited: bool = False, **data: Any) -> None:
        """Update a project; its suite stays out of it, so that hundreds can be tried."""
        before = yaml.safe_load((project / ANSWERS).read_text(encoding="utf-8"))["_commit"]
        with rendering():
            copier.run_update(
                project,
                data=data,
                defaults=True,
                overwrite=True,
                quiet=True,
                skip_tasks=True,
                unsafe=True,
                vcs_ref=version,
            )
        found = sorted(conflicts(project))
        self.record("update", [before, version, edited, sorted(data), found])

    def expect_green(self, project: Path, *steps: str) -> None:
        """Run a project's suite after steps of ``flask db``, unless the same code has passed before.

        A worker keeps one environment for all of them, of the Python that the project asks for, where there is one.
        """
        version = answers(project)["python_version"]
        if not has_python(version):
            return

        def make(folder: Path) -> None:
            env = {"UV_PROJECT_ENVIRONMENT": str(self.environment)}
            copy = shutil.copytree(project, folder / "myapp", symlinks=True, ignore=shutil.ignore_patterns(".git"))
            run("uv", "sync", "--quiet", "--python", version, cwd=copy, check=True, **env)
            for step in steps:
                run("uv", "run", "--no-sync", "flask", "db", step, cwd=copy, check=True, **env, FLASK_DEBUG="1")
            run("uv", "run", "--no-sync", "pytest", "-q", cwd=copy, check=True, **env, **QUICK)

        once(self.shared / f"green-{code(project)}", make)


@pytest.fixture
def projects(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, record_property: Any, worker_id: str
) -> Projects:
    """Projects that all processes of the test run share, until one is to be changed."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "projects"
    return Projects(shared, tmp_path, base / "environment", record_property)
