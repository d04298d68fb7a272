"""What the models say gets into the migrations, and the tables of a project's tests come from the migrations."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import QUICK, run
from questionnaire import Questionnaire
from test_suites import SERVERS, empty_database, install, server

IMPORTS = """
import enum

from sqlalchemy import JSON, Boolean, CheckConstraint, Enum, ForeignKeyConstraint, Index, MetaData, UniqueConstraint
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
"""
SEAT = '''

class Colour(enum.Enum):
    """A colour."""

    RED = 1
    BLUE = 2


class Seat(Base):
    """A seat."""

    __tablename__ = "seat"
    __table_args__ = ({constraints})

    id: Mapped[int] = mapped_column(primary_key=True)
'''
COLUMNS = {
    "room": "Mapped[int] = mapped_column(index=True)",
    "row": "Mapped[int] = mapped_column(unique=True)",
    "code": 'Mapped[int] = mapped_column(CheckConstraint("code > 0", name="code_positive"))',
    "colour": "Mapped[Colour]",
    "data": "Mapped[dict[str, int]] = mapped_column(JSON)",
    "a_name_that_makes_the_name_of_its_index_longer_than_63_chars": "Mapped[int] = mapped_column(index=True)",
}
CONSTRAINTS = [
    'UniqueConstraint("room", "row")',
    'UniqueConstraint("room", "code")',
    'Index(None, "row", "code")',
    'CheckConstraint("room <> code", name="room_is_no_code")',
    *(f'UniqueConstraint("row", "{list(COLUMNS)[-1]}", "{name}")' for name in ("room", "code")),
]


class Project(NamedTuple):
    """A project whose models change, and its database."""

    kind: str
    folder: Path
    url: str

    def models(self, columns: dict[str, str], *constraints: str, members: str = "") -> None:
        """Write the models."""
        file = self.folder / "src" / "myapp" / "models.py"
        base = file.read_text().partition("\n\nclass Colour")[0].partition("class Base")
        lines = [f"    {name}: {column}\n" for name, column in columns.items()]
        seat = SEAT.format(constraints="".join(f"{constraint}, " for constraint in constraints))
        seat = seat.replace("    BLUE = 2\n", f"    BLUE = 2\n{members}")
        string = "import sqlalchemy as sa\n" if "sa.String" in base[2] else ""
        file.write_text(f"{string}{IMPORTS}\n\n{base[1]}{base[2]}{seat}{''.join(lines)}")

    def run(self, *words: str, check: bool = True, **env: str) -> str:
        """Run a command of the project."""
        env = {"DATABASE_URL": self.url, "FLASK_DEBUG": "1", **QUICK, **env}
        command = self.folder / ".venv" / "bin" / words[0]
        return run(command, *words[1:], cwd=self.folder, check=check, **env).stdout

    def migrate(self) -> str:
        """Write a migration and apply it: its source."""
        versions = self.folder / "migrations" / "versions"
        known = set(versions.glob("*.py"))
        self.run("flask", "db", "migrate")
        (new,) = set(versions.glob("*.py")) - known
        self.run("flask", "db", "upgrade")
        self.run("flask", "db", "check")
        return new.read_text()

    def test(self, check: bool = True, sqlite: bool = True) -> str:
        """Run the tests of the database on SQLite, and on the server where there is one."""
        words = ("pytest", "-q", "tests/test_database.py", "tests/test_doctor.py", "tests/test_home.py")
        printed = self.run(*words, check=check) if sqlite else ""
        return printed if self.kind == "sqlite" else self.run(*words, check=check, TEST_DATABASE_URL=self.url)


@pytest.fixture(scope="module", params=["sqlite", *(pytest.param(name, marks=pytest.mark.slow) for name in SERVERS)])
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of database."""
    if request.param in SERVERS:
        server(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, questionnaire: Questionnaire, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project for that database, with its environment."""
    folder = tmp_path_factory.mktemp(kind) / "myapp"
    questionnaire.write(folder, database=kind, tour=False)
    install(folder)
    return folder


@pytest.fixture
def project(kind: str, folder: Path, questionnaire: Questionnaire, tmp_path: Path) -> Iterator[Project]:
    """The project as it was written, with an empty database."""
    shutil.rmtree(folder / "migrations")
    questionnaire.write(folder, database=kind, tour=False)
    if kind == "sqlite":
        yield Project(kind, folder, f"sqlite:///{tmp_path}/app.db")
    else:
        with empty_database(kind) as url:
            yield Project(kind, folder, url)


def test_every_constraint_gets_into_the_migrations_and_into_the_tests(project: Project) -> None:
    project.models(COLUMNS, *CONSTRAINTS)
    first = project.migrate()
    assert first.count("sa.CheckConstraint") == 2
    assert first.count("sa.UniqueConstraint") == 5

    project.models(
        COLUMNS | {"size": 'Mapped[int] = mapped_column(CheckConstraint("size > 0", name="size_positive"))'},
        *CONSTRAINTS[:3],
        *CONSTRAINTS[4:],
        'CheckConstraint("code < 9", name="code_small")',
    )
    second = project.migrate()
    checks = {"ck_seat_size_positive", "ck_seat_code_small", "ck_seat_room_is_no_code"}
    assert set(re.findall(r"f\(\"(ck_\w+)", second.partition("def downgrade")[0])) == checks
    project.run("flask", "db", "downgrade", "base")
    project.run("flask", "db", "upgrade")
    project.run("flask", "db", "check")

    (project.folder / "tests" / "test_home.py").write_text(
        """import pytest
from flask import Flask
from sqlalchemy.exc import DBAPIError

from myapp.database import db
from myapp.models import Colour, Seat


@pytest.mark.parametrize("size", [1, -5, 1])
def test_size_is_positive_as_in_production(app: Flask, size: int) -> None:
    with app.app_context():
        assert not db.session.query(Seat).count()
        db.session.add(Seat(room=1, row=2, code=3, colour=Colour.RED, data={}, size=size, LONG=1))
        if size < 0:
            with pytest.raises(DBAPIError, match="(?i)ck_seat_size_positive"):
                db.session.commit()
        else:
            db.session.commit()
""".replace("LONG", list(COLUMNS)[-1])
    )
    assert " passed" in project.test()


def test_names_change_only_for_several_columns(project: Project) -> None:
    """As in a project that was made before constraints were named after all of their columns."""
    file = project.folder / "src" / "myapp" / "models.py"
    project.models(COLUMNS)
    new = file.read_text()
    file.write_text(new.replace("column_0_N_", "column_0_"))
    project.migrate()

    file.write_text(new)
    project.run("flask", "db", "check")

    several = ['UniqueConstraint("room", "code")', 'UniqueConstraint("code", "row", name="uq_seat_code")']
    project.models(COLUMNS, *several)
    new = file.read_text()
    file.write_text(new.replace("column_0_N_", "column_0_"))
    project.migrate()
    file.write_text(new)
    names = re.findall(r"f\(\"(\w+)", project.migrate().partition("def downgrade")[0])
    assert sorted(names) == ["uq_seat_room", "uq_seat_room_code"]


def test_names_of_a_migration_that_sqlite_wrote_fit_every_database(project: Project, tmp_path: Path) -> None:
    """Each database shortens them itself, where they are longer than it allows."""
    columns = {name: column for name, column in COLUMNS.items() if name != "colour"}  # a type of a server's own
    project.models(columns, *CONSTRAINTS)
    project._replace(url=f"sqlite:///{tmp_path}/first.db").migrate()

    project.run("flask", "db", "upgrade")
    project.run("flask", "db", "check")
    project.run("flask", "db", "downgrade", "base")


def test_model_without_a_migration_stops_the_tests_with_what_to_type(project: Project) -> None:
    project.models({})

    printed = project.test(check=False)

    assert 'The models have changed. Write a migration: flask db migrate -m "what changed"' in printed
    assert "add_table" in printed
    project.migrate()
    assert " passed" in project.test()


@pytest.mark.parametrize(
    ("column", "kind_of_type", "check"),
    [
        ("colour", "Enum(Colour, name='c', create_constraint=True)", """"colour IN ('RED', 'BLUE')", name='c'"""),
        ("colour", "Enum('red', create_constraint=True)", """"colour IN ('red')", name='colour'"""),
        ("seen", "Boolean(True, name='c')", "'seen IN (False, True)', name='c'"),
        ("row", "Boolean(create_constraint=True)", None),
        ("Order", "Boolean(create_constraint=True)", None),
    ],
)
def test_constraint_of_a_type_is_refused_with_what_to_write(
    project: Project, column: str, kind_of_type: str, check: str | None
) -> None:
    """What to write works as it is, whatever the database quotes."""
    project.models({column: f"Mapped[object] = mapped_column({kind_of_type})"})

    printed = project.run("flask", "db", "migrate", check=False)

    error = f"seat.{column}: Alembic misses changes of create_constraint=True. Remove it, and add CheckConstraint("
    advice = printed.rpartition(error)[2].partition(").\n")[0]
    assert advice == (check or advice) != ""
    kind_of_type = kind_of_type.replace("create_constraint=True", "").replace("(True, ", "(").replace(", )", ")")
    kind_of_type = kind_of_type.replace("('red')", "('red', name='c')")
    project.models({column: f"Mapped[object] = mapped_column({kind_of_type})"}, f"CheckConstraint({advice})")
    assert "sa.CheckConstraint" in project.migrate()


def test_name_of_a_check_that_the_database_shortens_is_compared_as_it_is_there(project: Project) -> None:
    name = "delivered_date_is_after_dispatched_date_or_missing_xxxxxxxxxxxx"
    project.models(
        {"room": f'Mapped[int] = mapped_column(CheckConstraint("room > 0", name="{name}"))'},
        f'CheckConstraint("room < 9", name="{name}_too")',
    )

    project.migrate()
    assert "nothing to migrate" in project.run("flask", "db", "migrate")
    assert " passed" in project.test()

    project.models({"room": "Mapped[int]"})
    assert project.migrate().count("op.drop_constraint") + (project.kind == "sqlite") >= 2
    project.run("flask", "db", "downgrade")


def test_enum_goes_up_and_down_and_takes_a_new_member(project: Project) -> None:
    colours = {"colour": "Mapped[Colour]", "other": "Mapped[Colour]"}
    project.models(colours)
    project.migrate()
    project.run("flask", "db", "downgrade", "base")
    project.run("flask", "db", "upgrade")

    if project.kind == "sqlite":
        return  # which checks no member
    project.models(colours, members="    GREEN = 3\n")
    assert "GREEN" in project.migrate()
    for _ in range(2):
        project.run("flask", "db", "downgrade", "base")
        project.run("flask", "db", "upgrade")
    project.run("flask", "db", "check")
    assert " passed" in project.test(sqlite=False)
    assert "set TEST_DATABASE_URL" in project.run("pytest", "-q", check=False) or project.kind == "mysql"


def test_new_enum_member_is_usable_in_the_next_migration_of_one_upgrade(project: Project) -> None:
    """As in production, where the type is older than the upgrade."""
    if project.kind == "sqlite":
        pytest.skip("SQLite has no enum types")
    versions = project.folder / "migrations" / "versions"
    project.models({"colour": "Mapped[Colour]"})
    project.migrate()
    project.models({"colour": "Mapped[Colour]"}, members="    GREEN = 3\n")
    project.migrate()
    project.run("flask", "db", "downgrade")
    for statement in ("INSERT INTO seat (colour) VALUES ('GREEN')", "SELECT nothing"):
        project.run("flask", "db", "revision")
        (new,) = [file for file in versions.glob("*.py") if "    pass\n" in file.read_text().partition("def down")[0]]
        execute = f'    from alembic import op\n\n    op.execute("{statement}")\n'
        new.write_text(new.read_text().replace("    pass\n", execute, 1))

    printed = project.run("flask", "db", "upgrade", check=False)

    assert "nothing" in printed
    head = re.findall(r'^revision = "(\w+)"', new.read_text(), re.MULTILINE)[0]
    assert head not in project.run("flask", "db", "current")
    new.unlink()
    assert "(head)" in project.run("flask", "db", "current")


def test_types_of_postgresql_need_a_server(project: Project) -> None:
    if project.kind != "postgresql":
        pytest.skip("the types are those of PostgreSQL")
    project.models(
        {
            "tags": "Mapped[list[int]] = mapped_column(postgresql.ARRAY(postgresql.INTEGER))",
            "data": "Mapped[dict[str, int]] = mapped_column(postgresql.JSONB)",
        }
    )
    project.migrate()

    printed = project.run("pytest", "-q", check=False)
    assert "set TEST_DATABASE_URL" in printed
    assert "JSONB" in printed or "ARRAY" in printed
    assert " passed" in project.run("pytest", "-q", TEST_DATABASE_URL=project.url)
