"""The command of the README, as a stranger types it."""

import os
from pathlib import Path

import pytest
import yaml
from conftest import run

ADDRESS = "https://github.com/org/flask-starter.git"


@pytest.fixture
def github(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let git find this checkout where the template will be, and trust that place once and for all."""
    git = tmp_path / "gitconfig"
    git.write_text(
        Path(os.environ["GIT_CONFIG_GLOBAL"]).read_text() + f'[url "{template.as_uri()}"]\ninsteadOf = {ADDRESS}\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(git))
    settings = tmp_path / "settings.yml"
    settings.write_text("trust: ['gh:org/']\n")
    monkeypatch.setenv("COPIER_SETTINGS_PATH", str(settings))


@pytest.mark.usefixtures("github")
def test_one_command_makes_a_running_and_tested_project(tmp_path: Path) -> None:
    printed = run("copier", "copy", "--defaults", "gh:org/flask-starter", "myapp", cwd=tmp_path).stdout

    project = tmp_path / "myapp"
    assert " passed in " in printed
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert answers["_src_path"] == "gh:org/flask-starter"
    assert answers["project_name"] == "Myapp"
    assert run("git", "status", "--short", cwd=project).stdout == ""
    assert "/" in run("uv", "run", "flask", "--debug", "routes", cwd=project).stdout


@pytest.mark.usefixtures("github")
def test_project_can_be_updated_from_its_first_day(tmp_path: Path) -> None:
    run("copier", "copy", "--defaults", "gh:org/flask-starter", "myapp", cwd=tmp_path)
    project = tmp_path / "myapp"
    (project / "README.md").write_text((project / "README.md").read_text() + "\nOurs.\n")
    run("git", "commit", "--all", "--message", "Say whose it is", cwd=project)

    answers = ("--data", "database=none", "--data", "license=MIT")
    printed = run("copier", "update", "--defaults", *answers, cwd=project).stdout

    assert " passed in " in printed
    assert (project / "LICENSE").is_file()
    assert not list((project / "migrations").rglob("*.py"))
    assert "Ours." in (project / "README.md").read_text()
    run("git", "diff", "--check", cwd=project)


@pytest.mark.usefixtures("github")
def test_project_without_trust_is_complete(tmp_path: Path) -> None:
    (tmp_path / "settings.yml").write_text("{}\n")

    refused = run("copier", "copy", "--defaults", "gh:org/flask-starter", "myapp", cwd=tmp_path, check=False)
    assert refused.returncode == 4
    assert not (tmp_path / "myapp").exists()

    run("copier", "copy", "--defaults", "--skip-tasks", "gh:org/flask-starter", "myapp", cwd=tmp_path)
    assert (tmp_path / "myapp" / "README.md").is_file()
