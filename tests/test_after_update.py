"""After an update: what it lost comes back, what conflicts comes first, and the suite says whether it is good."""

import os
import re
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from conftest import run
from projects import NEWEST, Projects, commit, status
from test_hooks import CERTIFICATE_ERROR, FLAGS, HANG, Machine, contents, outcome, patched, steps

MIGRATION = '''"""{revision}."""

revision = "{revision}"
down_revision = {parent!r}


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
'''


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which all goes well, and fast: uv and the project's Python are stand-ins."""
    return Machine(tmp_path / "machine")


@pytest.fixture
def project(projects: Projects) -> Path:
    """A committed project."""
    return projects.project()


def after(machine: Machine, project: Path, *options: str, status: int = 0, **env: str) -> str:
    """Run the hook as Copier does, for a person who stands in the project."""
    given = ("--from=v0.1.0", "--to=v0.2.0", "--from-number=0.1.0", "--to-number=0.2.0", "--python=3.11")
    done = run(
        *(machine.bin / "copiers-python", FLAGS, machine.hooks, "after_update"),
        *(*given, "--answers-file=.copier-answers.yml", "--skip=no", *options),
        cwd=project,
        check=False,
        **{**machine.env, "PWD": str(project), **env},
    )
    assert "Traceback" not in done.stdout
    assert done.returncode == status, done.stdout
    return done.stdout


def edit(project: Path, name: str, text: str = "# Edited.\n") -> None:
    """Add to a file."""
    with (project / name).open("a") as file:
        file.write(text)


def conflict(
    project: Path, name: str, old: str = "", ours: str = "ours\n", new: str = "theirs\n", newline: str = "\n"
) -> None:
    """Leave a file as Copier leaves one that it could not merge: here at its end."""
    text, entries = (project / name).read_text(), ""
    for stage, end in enumerate((old, ours, new), start=1):
        (project / name).write_text(text + end, newline=newline)
        blob = run("git", "hash-object", "-w", name, cwd=project).stdout.strip()
        entries += f"100644 {blob} {stage}\t{name}\n"
    text = f"{text}<<<<<<< before updating\n{ours}=======\n{new}>>>>>>> after updating\n"
    (project / name).write_text(text, newline=newline)
    run(
        "sh",
        "-ec",
        f"git rm --cached -q {name}; printf '%s' \"$1\" | git update-index --index-info",
        "sh",
        entries,
        cwd=project,
    )


# ── What it says ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_report_says_what_changed_and_what_is_to_do(machine: Machine, project: Path) -> None:
    edit(project, "README.md")

    printed = after(machine, project)

    assert outcome("merge", printed) == "v0.1.0 to v0.2.0, 1 file changed"
    assert outcome("environment", printed) == "installed with uv"
    assert outcome("tests", printed) == "3 passed in 0.1 s"
    assert "\nNew since v0.1.0:\n  Changed: Outside debug mode the session cookie" in printed
    assert "\n  Added: A tour of Flask in the app" in printed
    assert "reverse proxy, and git repository" not in printed, "that was in 0.1.0"
    assert all(len(line) <= 112 for line in printed.splitlines())
    assert steps(printed) == [
        "git add --all .",
        'git commit -m "Update from flask-starter v0.2.0"',
        "# then restart what serves the app",
    ]
    assert machine.logs() == []


def test_answer_that_changes_brings_no_news(machine: Machine, project: Path) -> None:
    edit(project, "README.md")
    number = "0.2.0.post3.dev0+abc"
    stays = ("--from=v0.2.0-3-gabc", "--to=v0.2.0-3-gabc", f"--from-number={number}", f"--to-number={number}")

    assert "New since" not in after(machine, project, *stays)


def test_nothing_new_is_said_and_nothing_is_run(machine: Machine, project: Path) -> None:
    machine.program("uv", "exit 1")

    assert after(machine, project) == "\n  Nothing to update: the project has all of v0.2.0.\n"


def test_version_that_does_not_concern_the_project_runs_no_tests(machine: Machine, project: Path) -> None:
    machine.program("uv", "exit 1")
    edit(project, ".copier-answers.yml")

    printed = after(machine, project)

    assert "\nNothing in it concerns this project.\n" in printed
    assert steps(printed)[-1].startswith("git commit")


def test_steps_lead_to_the_project(machine: Machine, project: Path) -> None:
    edit(project, "README.md")

    assert steps(after(machine, project, PWD=str(project.parent)))[0] == "cd myapp"


def test_conflicts_come_first_and_nothing_is_run(machine: Machine, project: Path) -> None:
    machine.program("uv", "exit 1")
    conflict(project, "README.md")
    (project / "pyproject.toml.rej").write_text("@@ -1 +1 @@\n")

    printed = after(machine, project)

    assert outcome("merge", printed) == "CONFLICTS: in 2 of 2 changed files, listed below"
    assert outcome("environment", printed) == "not done: the conflicts come first"
    assert outcome("tests", printed) == "not done: the conflicts come first"
    assert "\n  README.md: keep what is right, and delete the lines <<<<<<<, ======= and >>>>>>>\n" in printed
    assert "\n  pyproject.toml.rej: merge it by hand, and delete it\n" in printed
    assert steps(printed)[:2] == ["uv sync", "uv run pytest"]
    after(machine, project, status=1, CI="true")


def test_failing_suite_is_loud_and_the_update_stands(machine: Machine, project: Path) -> None:
    machine.program("project-python", "echo 'assert 1 + 1 == 3'; echo '1 failed, 2 passed in 0.12s'; exit 1")
    edit(project, "README.md")
    changed = status(project)

    printed = after(machine, project)

    assert outcome("tests", printed) == "FAILED: 1 failed, 2 passed in 0.1 s"
    assert "\nassert 1 + 1 == 3\n" in printed
    assert "The tests fail, the update stands. Run them again: uv run pytest\n" in printed
    assert status(project) == changed
    after(machine, project, status=1, CI="1")


def test_model_without_a_migration_is_migrated_before_the_tests_are_repeated(machine: Machine, project: Path) -> None:
    """As after the update from a version that did not compare CHECK constraints."""
    conftest = (project / "tests" / "conftest.py").read_text()
    (message,) = re.findall(r"what = '(The models have changed.*)'", conftest)
    machine.program("project-python", f"echo '! Exit: {message}'; echo 'New operations: [long]'; exit 1")
    edit(project, "README.md")

    printed = after(machine, project)

    assert outcome("tests", printed) == "FAILED: the models have changes without a migration"
    assert "\n  If it adds a CHECK constraint, correct the rows that break it before flask db upgrade.\n" in printed
    assert steps(printed)[:4] == [
        'uv run flask db migrate -m "what changed"',
        "uv run flask db upgrade",
        "uv run pytest",
        "git add --all .",
    ]


def test_missing_network_is_no_error(machine: Machine, project: Path) -> None:
    machine.distrust_index()
    edit(project, "README.md")

    printed = after(machine, project)

    (log,) = machine.logs()
    assert outcome("environment", printed) == f"not done: {CERTIFICATE_ERROR} (log: {log})"
    assert outcome("tests", printed) == "not done: the environment comes first"
    assert steps(printed)[:2] == ["uv sync", "uv run pytest"]


def test_environment_that_uv_made_stays_where_uv_fails(machine: Machine, project: Path) -> None:
    (project / ".venv").mkdir()
    (project / ".venv" / "pyvenv.cfg").write_text("uv = 0.9.0\n")
    machine.distrust_index()
    machine.program("project-python", "exit 0")
    edit(project, "README.md")

    printed = after(machine, project)

    assert outcome("environment", printed).startswith(f"not done: {CERTIFICATE_ERROR} ")
    assert (project / ".venv" / "pyvenv.cfg").read_text() == "uv = 0.9.0\n"


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_unexpected_error_keeps_the_update(
    machine: Machine, project: Path, tmp_path: Path, ci: str, status: int
) -> None:
    patched(machine, tmp_path, '    """Run the project\'s own suite."""\n', "    {}['nowhere']\n")
    edit(project, "README.md")

    printed = after(machine, project, status=status, CI=ci)

    (log,) = machine.logs()
    error = f"Stopped at the stage tests by an unexpected error: KeyError('nowhere') (log: {log})."
    assert f"\n{error} The merge is done: git diff shows it.\n" in printed
    assert "Traceback (most recent call last)" in log.read_text()


def test_environment_that_pip_made_stays_one_of_pip(machine: Machine, project: Path) -> None:
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    shutil.copy2(machine.bin / "project-python", project / ".venv" / "bin" / "python")
    machine.program("uv", "exit 1")
    edit(project, "README.md")

    assert outcome("environment", after(machine, project)) == "installed with pip"


def test_without_tasks_it_only_reports(machine: Machine, project: Path) -> None:
    machine.program("uv", "exit 1")
    edit(project, "README.md")

    printed = after(machine, project, "--skip=yes")

    assert "environment" not in printed
    assert outcome("merge", printed).endswith("1 file changed")


# ── What it keeps ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_git_ignores_stays_as_it_is(machine: Machine, project: Path) -> None:
    for name in (".env", "instance/secret_key", "instance/myapp.db", "instance/uploads/a.txt"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(b"\0 the owner's")
    edit(project, "README.md")
    (project / "migrations/versions/tour_guestbook.py").unlink()
    ignored = {path: text for path, text in contents(project).items() if path.parts[0] in (".env", "instance")}

    after(machine, project)

    assert len(ignored) == 4
    assert ignored.items() <= contents(project).items()


@pytest.mark.parametrize(
    ("parent", "line"), [(None, 'down_revision = "own"'), ("tour_guestbook", "down_revision = None")]
)
def test_new_migration_comes_behind_the_owners(machine: Machine, project: Path, parent: str | None, line: str) -> None:
    """Unless one of them knows it already."""
    versions = project / "migrations" / "versions"
    new = (versions / "tour_guestbook.py").read_text()
    (versions / "tour_guestbook.py").unlink()
    (versions / "own.py").write_text(MIGRATION.format(revision="own", parent=parent))
    commit(project)
    (versions / "tour_guestbook.py").write_text(new)

    printed = after(machine, project)

    assert f"\n{line}\n" in (versions / "tour_guestbook.py").read_text()
    assert MIGRATION.format(revision="own", parent=parent) == (versions / "own.py").read_text()
    assert "uv run flask db upgrade" in steps(printed)


def test_migration_that_another_builds_on_stays(machine: Machine, project: Path) -> None:
    versions = project / "migrations" / "versions"
    (versions / "own.py").write_text(MIGRATION.format(revision="own", parent="tour_guestbook"))
    commit(project)
    (versions / "tour_guestbook.py").unlink()
    edit(project, "README.md")

    printed = after(machine, project)

    assert (versions / "tour_guestbook.py").exists()
    assert "tour_guestbook.py stays: a database has gone through it, or another migration builds on it" in printed
    assert outcome("tests", printed) == "not done: the migration comes first"
    assert steps(printed)[:3] == [
        'uv run flask db migrate -m "Undo tour_guestbook"',
        "uv run flask db upgrade",
        "uv run pytest",
    ]


SEAT = """

class Seat(Base):
    __tablename__ = "seat"
    __table_args__ = (
        UniqueConstraint("row"),
        UniqueConstraint("row", "code", name="uq_seat"),
        Index("by_code", "row", "code"),
        {constraint},
    )
"""


@pytest.mark.parametrize("constraint", ['UniqueConstraint("room", "row")', 'db.Index(None, "room", "row")', ""])
def test_constraint_that_gets_another_name_is_listed(machine: Machine, project: Path, constraint: str) -> None:
    models = project / "src/myapp/models.py"
    new = models.read_text()
    models.write_text(new.replace("column_0_N_", "column_0_"))
    edit(project, "src/myapp/seats.py", SEAT.format(constraint=constraint))
    commit(project)
    models.write_text(new)

    printed = after(machine, project)

    migration = ['uv run flask db migrate -m "Update constraints"', "uv run flask db upgrade"]
    assert ("src/myapp/seats.py:9\n" in printed) is bool(constraint)
    assert all(len(line) <= 112 for line in printed.splitlines())
    assert (set(migration) <= set(steps(printed))) is bool(constraint)
    assert ("not done: the migration comes first" in printed) is bool(constraint)
    commit(project)
    edit(project, "README.md")
    assert "uv run flask db" not in after(machine, project), "the next update does not repeat it"


@pytest.mark.parametrize("reached", ["tour_guestbook", "elsewhere"])
def test_migration_that_a_database_went_through_stays(machine: Machine, project: Path, reached: str) -> None:
    (project / "instance").mkdir()
    with closing(sqlite3.connect(project / "instance" / "myapp.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE alembic_version (version_num)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", [reached])
        connection.commit()
    database = contents(project / "instance")
    migration = project / "migrations" / "versions" / "tour_guestbook.py"
    migration.unlink()

    printed = after(machine, project)

    assert migration.exists() is (reached == "tour_guestbook")
    assert ("If a database went through it: git restore migrations/versions" in printed) is not migration.exists()
    assert contents(project / "instance") == database


def test_conflict_in_a_migration_is_none(machine: Machine, project: Path) -> None:
    name = "migrations/versions/tour_guestbook.py"
    before = (project / name).read_bytes()
    conflict(project, name)

    assert "Nothing to update" in after(machine, project)

    assert (project / name).read_bytes() == before


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize(
    ("ours", "new", "merged"),
    [
        ("old\nours\n", "new\n", "new\nours\n"),
        ("ours\nold\n", "new\n", "ours\nnew\n"),
        ("old\nours\n", "", "ours\n"),
        ("ours\n", "new\n", None),
        ("", "new\n", None),
        ("old, ours\n", "new\n", None),
    ],
)
def test_lines_beside_those_that_changed_are_no_conflict(
    machine: Machine, project: Path, ours: str, new: str, merged: str | None, newline: str
) -> None:
    """The owner's lines that are changed or gone are one."""
    text = (project / "README.md").read_text()
    conflict(project, "README.md", "old\n", ours, new, newline)
    with_markers = (project / "README.md").read_text()

    printed = after(machine, project)

    assert outcome("merge", printed).startswith("CONFLICTS") is (merged is None)
    expected = with_markers if merged is None else text + merged
    assert (project / "README.md").read_bytes() == expected.replace("\n", newline).encode()
    assert status(project)[0] == ("UU README.md" if merged is None else " M README.md")


# ── With Copier ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_file_that_the_owner_edited_outlives_its_option(
    projects: Projects, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Copier would delete it without a word."""
    edit(project, "src/myapp/tour/pages.py")
    edit(project, "migrations/README", "Ours.\n")
    commit(project)

    projects.update(project, tour=False, database="none", edited=True)

    printed = capfd.readouterr().out
    kept = "src/myapp/tour/pages.py"
    assert f"\n  {kept}: the template has it no more, and you had changed it: keep it, or git rm {kept}\n" in printed
    assert (project / kept).read_text().endswith("# Edited.\n")
    assert (project / "migrations/README").read_text() == "Ours.\n"
    assert [path.name for path in (project / "src/myapp/tour").rglob("*") if path.is_file()] == ["pages.py"]


@pytest.mark.parametrize("stage", ["environment", "tests"])
def test_ctrl_c_leaves_a_whole_update(machine: Machine, projects: Projects, project: Path, stage: str) -> None:
    pexpect = pytest.importorskip("pexpect")
    machine.program("uv" if stage == "environment" else "project-python", HANG)
    words = ["-m", "copier", "update", "--trust", "--defaults", "--quiet", "--data=license=MIT", f"--vcs-ref={NEWEST}"]
    child = pexpect.spawn(
        sys.executable, words, cwd=project, env={**os.environ, **machine.copiers_env}, encoding="utf-8", timeout=60
    )
    child.expect_exact(f"  {stage} ")
    machine.hanging()

    child.sendintr()
    child.expect(pexpect.EOF)

    assert f"Stopped at the stage {stage}. The merge is done: git diff shows it." in child.before
    assert (project / "LICENSE").exists()


@pytest.mark.slow
def test_update_ends_with_green_tests(projects: Projects, project: Path) -> None:
    update = ("update", "--trust", "--defaults", f"--vcs-ref={NEWEST}", "--data=database=none", "--data=tour=false")

    printed = run(sys.executable, "-m", "copier", *update, cwd=project).stdout

    assert outcome("environment", printed) == "installed with uv"
    assert re.fullmatch(r"\d+ passed in \d+\.\d s", outcome("tests", printed))
