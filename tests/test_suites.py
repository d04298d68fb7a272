"""The suite and the checks that a project is written with: where, how and with what they pass."""

import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import COUNTABLE, OFF, ON, QUICK, Render, checked, describe, has_python, run
from pytest_copie.plugin import Copie
from questionnaire import Questionnaire
from sqlalchemy import NullPool, create_engine, make_url, text

BIN = Path(".venv", "Scripts" if os.name == "nt" else "bin")
SERVERS = {
    "postgresql": os.environ.get("TEST_POSTGRESQL_URL", "postgresql://root@127.0.0.1:5432/test"),
    "mysql": os.environ.get("TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306/test"),
}
DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
MODEL = '''

class Note(Base):
    """A line that somebody wrote."""

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(unique=True)
'''
MODEL_TEST = '''"""Each test finds the table as empty as the one before it did."""

import pytest
from flask import Flask
from sqlalchemy import func, select

from myapp.database import db
from myapp.models import Note


@pytest.mark.parametrize("number", [1, 2])
def test_table_is_empty_at_first(app: Flask, number: int) -> None:
    with app.app_context():
        assert db.session.scalar(select(func.count()).select_from(Note)) == 0
        db.session.add(Note(text="the same each time"))
        db.session.commit()
    with app.app_context():
        assert db.session.scalar(select(func.count()).select_from(Note)) == 1
'''


# Of Python, and of the tools of a check: none of them may change its result.
VARIABLES = {
    "COLUMNS": "10",
    "COVERAGE_CORE": "pytrace",
    "FLASK_APP": "nowhere",
    "FLASK_DEBUG": "1",
    "FORCE_COLOR": "1",
    "GUNICORN_CMD_ARGS": "--bind=nowhere",
    "HOME": "/nowhere",
    "LC_ALL": "C",
    "MYPYPATH": "/nowhere",
    "PORT": "nowhere",
    "PY_COLORS": "1",
    "PYTHONDEVMODE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONIOENCODING": "ascii",
    "PYTHONNOUSERSITE": "1",
    "PYTHONOPTIMIZE": "2",
    "PYTHONSAFEPATH": "1",
    "PYTHONUTF8": "0",
    "PYTHONWARNINGS": "error",
    "TMPDIR": "/nowhere",
    "TZ": "Asia/Kolkata",
    "WEB_CONCURRENCY": "0",
}
# Globs, formats, shells and configuration files read something into these.
NAMES = [
    "50% off",
    "a[b]",
    "a$HOME",
    "a{b}",
    "it's",
    "ünïcode",
    "a;b",
    "a#b",
    "a&b",
    " leading",
    "trailing ",
    "-dash",
    "a*b?",
    "a,b!",
    "~",
    'a"b"',
    "%(x)s",
    "${x}",
    "@a=b",
    "(a|b)",
    "<a>",
    "`a`",
]


def server(database: str) -> str:
    """The address of a server for tests; without the server, skip, or fail where servers are promised."""
    url = SERVERS[database]
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname or "", address.port or 0), timeout=2).close()
    except OSError as error:
        if os.environ.get("REQUIRE_SERVERS"):
            raise
        pytest.skip(f"no {database} server at {address.hostname}:{address.port}: {error}")
    return url


def execute(database: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements on a server for tests, as who may do everything there, and read the rows of the last."""
    url = make_url(server(database)).set(drivername=DRIVERS[database])
    with create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as connection:
        for statement in statements:
            result = connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


@contextmanager
def empty_database(database: str) -> Iterator[str]:
    """The address of a database of a test's own on a server, until the test ends."""
    url, name = server(database), f"flask_starter_{secrets.token_hex(6)}"
    execute(database, f"CREATE DATABASE {name}")
    try:
        yield urlsplit(url)._replace(path=f"/{name}").geturl()
    finally:
        execute(database, f"DROP DATABASE {name}")


def install(project: Path, *options: str) -> Path:
    """Make a project's environment, and name the folder of its commands."""
    run("uv", "sync", *options, cwd=project)
    return project / BIN


@pytest.fixture(scope="module")
def small(questionnaire: Questionnaire, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest project, with its environment."""
    project = tmp_path_factory.mktemp("small") / "myapp"
    questionnaire.write(project, database="none", tour=False)
    install(project)
    return project


def test_check_needs_no_uv(small: Path) -> None:
    """Nor an environment that is active."""
    run(small / BIN / "poe", "check", cwd=small, PATH=os.defpath)


def test_check_passes_with_variables_of_other_programs(small: Path, tmp_path: Path) -> None:
    """Without assert statements the tests prove nothing, and coverage 7.17 does not terminate."""
    run(small / BIN / "poe", "check", cwd=small, check=True, **VARIABLES, PYTHONPYCACHEPREFIX=str(tmp_path))


def test_suite_without_asserts_says_so(small: Path) -> None:
    tested = run(small / BIN / "pytest", cwd=small, check=False, PYTHONOPTIMIZE="1")

    assert tested.returncode
    assert "assert statements are not executed" in tested.stdout


@pytest.mark.parametrize(
    "name", ["[b]{c} $HOME;it's#&ü~ ", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES)]
)
def test_check_passes_in_a_folder_of_any_name(small: Path, tmp_path: Path, name: str) -> None:
    project = shutil.copytree(small, tmp_path / name / "myapp", ignore=shutil.ignore_patterns(".venv"))
    commands = install(project)

    run("uv", "run", "poe", "check", cwd=project)
    run(commands / "poe", "fix", cwd=project)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("NUMBER=1", "1 file would be reformatted"),
        ("import this", "E402"),
        ('NUMBER: int = "one"', "[assignment]"),
        ("def test_sum() -> None:\n    assert 1 + 1 == 3", "1 failed"),
        ("def unused() -> int:\n    return 1", "is less than fail-under=100"),
    ],
    ids=["format", "lint", "type", "test", "coverage"],
)
def test_each_fault_fails_the_check_that_goes_on(small: Path, fault: str, complaint: str) -> None:
    file = small / "tests" / "test_home.py"
    sound = file.read_text()
    file.write_text(f"{sound}\n\n{fault}\n")
    try:
        done = run("uv", "run", "poe", "check", cwd=small, check=False)
    finally:
        file.write_text(sound)

    assert done.returncode
    assert complaint in done.stdout
    assert done.stdout.count("Poe => ") == 5


@pytest.mark.slow
def test_fix_mends_what_it_can(small: Path) -> None:
    file = small / "tests" / "test_home.py"
    sound = file.read_text()
    file.write_text(f"import os\n{sound}\n")

    run("uv", "run", "poe", "fix", cwd=small)

    assert file.read_text() == sound


@pytest.mark.parametrize("answers", [OFF | {"git": True}, pytest.param(ON, marks=pytest.mark.slow)], ids=describe)
def test_copy_ends_with_green_tests_and_a_clean_repository(
    copie: Copie, template: Path, answers: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    result = copie.copy(checked(answers), template_dir=template)

    assert result.exception is None
    assert result.project_dir is not None
    assert answers.items() <= result.answers.items()
    assert " passed in " in capfd.readouterr().out
    assert run("git", "status", "--short", cwd=result.project_dir).stdout == ""


@pytest.mark.parametrize("database", ["sqlite", *(pytest.param(name, marks=pytest.mark.slow) for name in SERVERS)])
def test_model_gets_a_table_by_migration(render: Render, database: str) -> None:
    """What the README says about the database, done to the letter."""
    project = render(database=database, tour=False)
    commands = install(project)
    models = project / "src" / "myapp" / "models.py"
    models.write_text(
        models.read_text().replace("DeclarativeBase\n", "DeclarativeBase, Mapped, mapped_column\n", 1) + MODEL
    )
    (project / "tests" / "test_note.py").write_text(MODEL_TEST)

    def flask(*arguments: str) -> str:
        return run(commands / "flask", *arguments, cwd=project, DATABASE_URL=url).stdout

    with empty_database(database) if database in SERVERS else nullcontext("") as url:
        flask("db", "migrate", "--message", "add notes")
        (migration,) = (project / "migrations" / "versions").glob("*_add_notes.py")
        assert 'op.f("pk_note")' in migration.read_text()
        flask("db", "upgrade")
        assert "nothing to migrate" in flask("db", "migrate", "--message", "again")
        flask("db", "check")
        tests = ("tests/test_note.py", "tests/test_database.py")
        run(commands / "pytest", "-q", *tests, cwd=project, TEST_DATABASE_URL=url)
    if database == "sqlite":
        assert "CREATE TABLE note" in flask("db", "upgrade", "--sql")
        flask("db", "revision", "--message", "by hand")
        for check in (("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)):
            run(commands / check[0], *check[1:], cwd=project)


@pytest.mark.slow
@pytest.mark.parametrize("database", SERVERS)
def test_suite_passes_on_a_server(render: Render, database: str) -> None:
    project = render(database=database)

    with empty_database(database) as url:
        tested = run(install(project) / "pytest", "-q", cwd=project, TEST_DATABASE_URL=url, **QUICK)

    assert "passed" in tested.stdout
    assert not (project / "instance").exists(), "the tests leave the developer's own data alone"


@pytest.mark.slow
def test_suite_passes_in_any_order_and_in_pieces(render: Render) -> None:
    project = render()
    commands = install(project)

    for file in sorted((project / "tests").rglob("test_*.py")):
        run(commands / "pytest", "-q", file, cwd=project, **QUICK)
    for seed in ("1", "2"):
        run("uv", "run", "--with", "pytest-randomly", "pytest", "-q", f"--randomly-seed={seed}", cwd=project, **QUICK)


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare command, which takes the network away")
def test_suite_needs_no_network(render: Render) -> None:
    project = render()
    commands = install(project)
    if run("unshare", "--map-root-user", "--net", "true", cwd=project, check=False).returncode:
        pytest.skip("this machine lets nobody take the network away")

    run("unshare", "--map-root-user", "--net", commands / "pytest", "-q", cwd=project)


@pytest.mark.slow
@pytest.mark.parametrize("version", COUNTABLE["python_version"])
@pytest.mark.parametrize("answers", [OFF, ON], ids=describe)
def test_suite_passes_on_each_python(render: Render, version: str, answers: dict[str, Any]) -> None:
    if not has_python(version):
        pytest.skip(f"no Python {version} on this machine")
    project = render(**answers)
    commands = install(project, "--python", version)

    assert f"Python {version}" in run(commands / "python", "--version", cwd=project).stdout
    run(commands / "pytest", "-q", cwd=project, **QUICK)
    run(commands / "mypy", cwd=project)


@pytest.mark.slow
def test_lowest_versions_that_the_project_promises_work(render: Render) -> None:
    project = render(database="postgresql", proxy_fix=True)

    commands = install(project, "--resolution", "lowest-direct")

    run(commands / "pytest", "-q", cwd=project)
