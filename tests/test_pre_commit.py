"""With pre-commit switched on, a fresh project's commits pass and a careless one is refused."""

import sys
from pathlib import Path

import pytest
from conftest import Render, run
from test_suites import install

pytestmark = pytest.mark.slow


@pytest.fixture
def project(render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed project whose hooks are installed, as its README says."""
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "pre-commit"))
    project = render()
    install(project)
    run("git", "init", "-q", cwd=project)
    run("git", "add", ".", cwd=project)
    pre_commit(project, "install")
    return project


def pre_commit(project: Path, *arguments: str) -> str:
    """Type a command of pre-commit's, which is no part of the project."""
    return run(sys.executable, "-m", "pre_commit", *arguments, cwd=project).stdout


def test_fresh_project_passes(project: Path) -> None:
    checked = pre_commit(project, "run", "--all-files")
    committed = run("git", "commit", "-m", "Start", cwd=project).stdout

    for printed in (checked, committed):
        assert printed.count("Passed") == 3
        assert not {"Failed", "Skipped", "[WARNING]"} & set(printed.split())
    assert run("git", "status", "--short", cwd=project).stdout == ""


@pytest.mark.parametrize(
    ("fault", "hook"),
    [("NUMBER=1", "ruff-format"), ('ONE = eval("1")', "ruff-check"), ('NUMBER: int = "one"', "mypy")],
    ids=["format", "lint", "type"],
)
def test_fault_is_not_committed(project: Path, fault: str, hook: str) -> None:
    with (project / "tests" / "test_home.py").open("a") as file:
        file.write(f"\n\n{fault}\n")
    run("git", "add", ".", cwd=project)

    done = run("git", "commit", "-m", "Start", cwd=project, check=False)

    assert done.returncode
    assert done.stdout.count("Passed") == 2
    assert f"- hook id: {hook}\n" in done.stdout
    assert run("git", "log", cwd=project, check=False).returncode, "nothing is committed"
