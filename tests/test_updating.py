"""Each command of docs/updating.md does what is said about it."""

import re
from pathlib import Path

import pytest
from conftest import ROOT, run
from projects import NEWEST, Projects, answers, commit, conflicts, contents, status

TEXT = (ROOT / "docs" / "updating.md").read_text(encoding="utf-8")
COMMANDS: dict[str, str] = dict(re.findall(r"^<!-- (\w+) -->\n```sh\n(.+?)^```", TEXT, re.MULTILINE | re.DOTALL))


@pytest.fixture
def project(projects: Projects) -> Path:
    """A project of an earlier release."""
    return projects.project("v0.1.0")


def do(name: str, project: Path, *, check: bool = True, **env: str) -> str:
    """Type commands in a project; the suite is that of tests/test_after_update.py."""
    command = COMMANDS[name]
    if "--skip-tasks" not in command:
        command = command.replace("--trust", "--trust --skip-tasks")
    done = run("sh", "-ec", command, cwd=project, check=check, **env)
    return f"{done.stdout}exit {done.returncode}"


def follow(command: str, project: Path) -> None:
    """Type a command that stands within a sentence."""
    assert f"`{command}`" in TEXT
    run("sh", "-ec", command, cwd=project)


def test_every_command_is_here() -> None:
    names = {"newest", "answer", "check", "undo", "pin", "again", "resolved", "rename", "many"}
    assert COMMANDS.keys() == names
    assert TEXT.count("```sh") == len(names)


def test_newest_release_is_found_taken_and_undone(project: Path) -> None:
    assert do("check", project, check=False).endswith("exit 2")
    do("newest", project)
    assert NEWEST in (project / ".copier-answers.yml").read_text()
    do("undo", project)
    assert status(project) == []
    do("pin", project)
    assert "_commit: v0.2.0\n" in (project / ".copier-answers.yml").read_text()


def test_answer_is_changed(projects: Projects) -> None:
    project = projects.project()
    do("answer", project)
    assert contents(project) == contents(projects.fresh(data={"license": "MIT"}))
    assert do("check", project).endswith("exit 0")


def test_files_are_written_again(projects: Projects) -> None:
    project = projects.project()
    before = contents(project)
    (project / "README.md").write_text("Ours.\n")
    commit(project)
    do("again", project)
    assert contents(project) == before


@pytest.mark.slow
@pytest.mark.parametrize("proxy_fix", [False, True])
def test_package_is_renamed(projects: Projects, proxy_fix: bool) -> None:
    """To what a fresh project of that name has; and updates go on."""
    project = projects.project(data={"proxy_fix": proxy_fix})
    (project / "instance").mkdir()
    (project / "instance/myapp.db").write_bytes(b"SQLite format 3\0 the owner's")
    do("rename", project)
    follow("mv instance/myapp.db instance/shop.db", project)
    renamed = {"package_name": "shop", "proxy_fix": proxy_fix}
    assert contents(project) == contents(projects.fresh(data=renamed))
    do("answer", project)
    assert answers(project)["license"] == "MIT"
    assert contents(project) == contents(projects.fresh(data={**renamed, "license": "MIT"}))


@pytest.mark.slow
def test_conflict_is_resolved_and_many_are_updated(projects: Projects) -> None:
    project = projects.project()
    (project / "README.md").write_text((project / "README.md").read_text().replace("made with Flask", "of ours"))
    commit(project)
    folder = project.parent
    good = projects.project().rename(folder / "another")

    many = COMMANDS["many"].replace("--defaults", "--defaults --skip-tasks --data description=Engines.")
    done = run("sh", "-c", many, cwd=folder, check=False)

    assert "CONFLICTS: in 1 of" in done.stdout
    assert "Update from flask-starter" in run("git", "log", "-1", "--format=%s", cwd=good).stdout
    assert "Update from" not in run("git", "log", "-1", "--format=%s", cwd=project).stdout
    assert run("git", "diff", "--check", cwd=project, check=False).returncode
    ours = re.compile(r"<<<<<<<.*?\n(.*?)=======.*?>>>>>>> .*?\n", re.DOTALL)
    for name in ("README.md", "pyproject.toml"):
        (project / name).write_text(ours.sub(r"\1", (project / name).read_text()))
    do("resolved", project)
    assert status(project) == []


@pytest.mark.slow
def test_changes_are_put_aside_and_a_part_is_skipped(projects: Projects) -> None:
    project = projects.project()
    (project / "draft.txt").write_text("Ours.\n")
    follow("git stash --include-untracked", project)
    do("answer", project)
    follow("git checkout HEAD -- README.md", project)
    commit(project)
    follow("git stash pop", project)
    assert status(project) == ["?? draft.txt"]
    commit(project)

    projects.update(project, edited=True, tour=False)

    assert not conflicts(project)
    assert "## Licence" not in (project / "README.md").read_text(), "later updates respect what was skipped"
    assert (project / "LICENSE").exists()


@pytest.mark.slow
def test_answer_alone_is_changed(projects: Projects) -> None:
    project = projects.project("v0.2.0")
    assert "with `--vcs-ref=:current:` it changes only the answer" in TEXT

    run("sh", "-ec", COMMANDS["answer"].replace("--trust", "--trust --skip-tasks --vcs-ref=:current:"), cwd=project)

    assert "_commit: v0.2.0\n" in (project / ".copier-answers.yml").read_text()
    assert (project / "LICENSE").exists()
