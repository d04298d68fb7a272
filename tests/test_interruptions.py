"""A copy or an update that is cut off, or made in an odd place, loses nothing; and the next one works."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import CONFIG, run
from projects import ANSWERS, NEWEST, Projects, answers, commit, conflicts, contents, status
from test_hooks import HANG, Machine, commits, paste, steps

if sys.platform == "win32":
    pytest.skip("the stand-ins for git are shell scripts, which Windows does not run", allow_module_level=True)

UNDO = "git reset --hard && git clean --force -d"
SECRETS = {".env": b"FLASK_SECRET_KEY=the owner's\n", "instance/myapp.db": b"SQLite format 3\0 the owner's"}


@pytest.fixture
def project(projects: Projects) -> Path:
    """A committed project of an owner's, with data that git ignores."""
    project = projects.project()
    (project / "README.md").write_text((project / "README.md").read_text() + "\nOurs.\n")
    commit(project)
    for name, content in SECRETS.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_bytes(content)
    return project


def update(*options: str) -> list[str]:
    """The command that a person types, without the suite."""
    words = ("update", "--trust", "--defaults", "--skip-tasks", "--quiet", f"--vcs-ref={NEWEST}", "--data=license=MIT")
    return [sys.executable, "-m", "copier", *words, *options]


def expect_updated(projects: Projects, project: Path) -> None:
    """Update a project that was undone, and find it whole."""
    run("sh", "-ec", UNDO, cwd=project)
    assert status(project) == []
    run(*update(), cwd=project)
    expected = contents(projects.fresh(data={"license": "MIT"}))
    # Before the last section, which comes after a licence.
    assert contents(project) == {**expected, "README.md": expected["README.md"] + b"\nOurs.\n"}
    assert {name: (project / name).read_bytes() for name in SECRETS} == SECRETS


@pytest.fixture
def hang(tmp_path: Path) -> Callable[[str], tuple[dict[str, str], Path]]:
    """Let one command of git hang: the variables for that, and the file that then appears."""

    def hang(command: str) -> tuple[dict[str, str], Path]:
        hangs = tmp_path / "hangs"
        program = tmp_path / "bin" / "git"
        program.parent.mkdir()
        case = f'case " $* " in *" {command} "*) touch {hangs}; exec sleep 60 ;; esac'
        program.write_text(f'#!/bin/sh\n{case}\nexec {shutil.which("git")} "$@"\n')
        program.chmod(0o755)
        return {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}, hangs

    return hang


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("command", ["init", "write-tree", "diff-tree", "apply", "ls-files"])
def test_update_that_is_cut_off_loses_nothing(
    projects: Projects, project: Path, hang: Callable[[str], tuple[dict[str, str], Path]], command: str, end: int
) -> None:
    """While the old version is rendered, before and after the new one is, at the merge, and in the hook."""
    env, hangs = hang(command)
    head = run("git", "rev-parse", "HEAD", cwd=project).stdout
    process = subprocess.Popen(
        update(), cwd=project, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not hangs.exists():
        assert process.poll() is None, f"git {command} was never run"
        assert time.monotonic() < deadline
        time.sleep(0.05)

    os.killpg(process.pid, end)
    process.wait(timeout=60)

    assert run("git", "rev-parse", "HEAD", cwd=project).stdout == head
    assert {name: (project / name).read_bytes() for name in SECRETS} == SECRETS
    expect_updated(projects, project)


# What to stop: by which words of git, or as which program.
COPY_STAGES = {
    "clone": "clone",
    "files": "core.fileMode",
    "environment": "uv",
    "tests": "project-python",
    "git": "--message",
}
OWN_FILES = {"notes.txt": b"The owner's.", "README.md": b"The owner's as well."}


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize(
    ("stage", "before"),
    [*((stage, {}) for stage in COPY_STAGES), *((stage, OWN_FILES) for stage in COPY_STAGES if stage != "git")],
)
def test_copy_that_is_cut_off_loses_nothing(
    projects: Projects, tmp_path: Path, stage: str, before: dict[str, bytes], end: int
) -> None:
    """Into a new folder, and into one with files of the owner's; the next copy, and what it leaves to do, mend all."""
    project = tmp_path / "work" / "myapp"
    (project if before else project.parent).mkdir(parents=True)
    for name, content in before.items():
        (project / name).write_bytes(content)
    machine, sound = Machine(tmp_path / "machine"), Machine(tmp_path / "sound")
    if stage in ("environment", "tests"):
        machine.program(COPY_STAGES[stage], HANG)
    else:  # of the files git is asked about each
        begun = f"[ -e {project}/pyproject.toml ]" if stage == "files" else "true"
        machine.git(COPY_STAGES[stage], f"if {begun}; then {HANG}; fi")
    options = ("--trust", "--defaults", "--quiet", "--skip=README.md", f"--vcs-ref={NEWEST}")
    given = ("--data=package_name=myapp", "--data=project_name=My App")
    command = [sys.executable, "-m", "copier", "copy", *options, *given, str(projects.template), str(project)]
    with subprocess.Popen(
        command,
        cwd=project.parent,
        env={**os.environ, **machine.copiers_env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as copy:
        machine.hanging()
        os.killpg(copy.pid, end)
    assert copy.returncode
    assert {name: (project / name).read_bytes() for name in before} == before

    env = {**sound.copiers_env, "PWD": str(project.parent)}
    printed = run(*command, cwd=project.parent, check=True, **env).stdout

    assert "Traceback" not in printed
    expected = {**contents(projects.fresh()), **before}
    del expected[str(ANSWERS)]
    assert {name: (project / name).read_bytes() for name in expected} == expected
    assert answers(project) == answers(projects.fresh())
    paste(steps(printed), project.parent, **env)
    assert commits(project) == ["Start from flask-starter"]
    assert status(project) == []


def test_dirty_project_is_refused_as_it_is(project: Path) -> None:
    (project / "draft.txt").write_text("The owner's.")

    done = run(*update(), cwd=project, check=False)

    assert done.returncode
    assert "Please commit or stash your local changes and retry." in done.stdout
    assert status(project) == ["?? draft.txt"]


def test_readme_says_how_to_undo(project: Path) -> None:
    assert f"`{UNDO}`" in (project / "README.md").read_text()


def test_project_inside_a_larger_repository(projects: Projects, project: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    shutil.copytree(project, outer / "services" / "myapp", ignore=shutil.ignore_patterns(".git"))
    (outer / "README.md").write_text("Of all services.\n")
    commit(outer)

    run(*update("--data=tour=false"), cwd=outer / "services" / "myapp")

    assert not conflicts(outer)
    expected = contents(projects.fresh(data={"license": "MIT", "tour": False}))
    expected["README.md"] += b"\nOurs.\n"
    assert contents(outer / "services" / "myapp") == expected
    assert (outer / "README.md").read_text() == "Of all services.\n"


@pytest.mark.slow
def test_project_whose_folder_was_renamed(projects: Projects, project: Path) -> None:
    project = project.rename(project.with_name("shop"))

    expect_updated(projects, project)


@pytest.mark.slow
def test_file_that_the_owner_made_executable(projects: Projects, project: Path) -> None:
    (project / "pyproject.toml").chmod(0o755)
    commit(project)

    expect_updated(projects, project)
    assert (project / "pyproject.toml").stat().st_mode & 0o111


def test_read_only_file(projects: Projects, project: Path) -> None:
    (project / "README.md").chmod(0o444)

    expect_updated(projects, project)


def test_files_with_the_line_ends_of_windows(projects: Projects, project: Path) -> None:
    """As git for Windows checks them out."""
    run("git", "config", "core.autocrlf", "true", cwd=project)
    for name in run("git", "ls-files", cwd=project).stdout.split():
        (project / name).unlink()
    run("git", "checkout", "--", ".", cwd=project)
    assert (project / "README.md").read_bytes().endswith(b"\r\nOurs.\r\n")
    (project / "src/myapp/tour/pages.py").write_text("# Edited.\n", newline="\r\n")
    commit(project)

    run(*update("--data=tour=false"), cwd=project)

    assert not conflicts(project)
    expected = contents(projects.fresh(data={"license": "MIT", "tour": False}))
    found = {name: content.replace(b"\r\n", b"\n") for name, content in contents(project).items()}
    assert found.pop("src/myapp/tour/pages.py") == b"# Edited.\n"
    assert found == {**expected, "README.md": expected["README.md"] + b"\nOurs.\n"}


@pytest.mark.slow
@pytest.mark.parametrize("version", [CONFIG["_min_copier_version"], "latest"])
def test_copiers_oldest_and_newest_version(projects: Projects, project: Path, version: str) -> None:
    copier = ["uv", "tool", "run", f"copier@{version}", *update("--data=database=none")[3:]]

    run(*copier, cwd=project, UV_PYTHON=sys.executable)

    assert not conflicts(project)
    expected = contents(projects.fresh(data={"license": "MIT", "database": "none"}))
    assert contents(project) == {**expected, "README.md": expected["README.md"] + b"\nOurs.\n"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder, cwd=tmp_path, check=False).returncode:
        pytest.skip("nobody but root may mount a small disk")
    yield folder
    run("umount", folder, cwd=tmp_path)


@pytest.mark.skipif(not shutil.which("mount"), reason="no mount command, which makes a small disk")
def test_full_disk(projects: Projects, project: Path, small_disk: Path) -> None:
    project = shutil.copytree(project, small_disk / "myapp", symlinks=True)
    head = run("git", "rev-parse", "HEAD", cwd=project).stdout
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096) == 4096:
            pass

    done = run(*update(), cwd=project, check=False)

    assert done.returncode
    filler.unlink()
    assert run("git", "rev-parse", "HEAD", cwd=project).stdout == head
    expect_updated(projects, project)
