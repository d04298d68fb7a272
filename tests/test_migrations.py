"""Migrations keep the rows of a database, up, down and up again; a failed one changes nothing."""

import re
import secrets
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from allpairspy import AllPairs
from conftest import run
from questionnaire import Questionnaire
from sqlalchemy import (
    CheckConstraint,
    Column,
    Constraint,
    Engine,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    NullPool,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    make_url,
    select,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import SchemaItem
from test_suites import BIN, DRIVERS, MODEL, SERVERS, empty_database, execute, install, server

KINDS = ["sqlite", *(pytest.param(kind, marks=pytest.mark.slow) for kind in SERVERS)]
MIGRATION = """import sqlalchemy as sa
from alembic import op

revision = "{name}"
down_revision = {parent!r}


def upgrade() -> None:
    {up}


def downgrade() -> None:
    {down}
"""
ONDELETE = {"cascade": "CASCADE", "null": "SET NULL", "restrict": "RESTRICT", "none": None}
# What a migration does to a table that other rows refer to, and what its downgrade does.
PARENT_CHANGES = {
    "add_column": (
        'batch.add_column(sa.Column("added", sa.String(20), nullable=False, server_default="new"))',
        'batch.drop_column("added")',
    ),
    "drop_column": ('batch.drop_column("unused")', 'batch.add_column(sa.Column("unused", sa.String(20)))'),
    "alter_nullable": (
        'batch.alter_column("name", existing_type=sa.String(80), nullable=False)',
        'batch.alter_column("name", existing_type=sa.String(80), nullable=True)',
    ),
    "alter_type": (
        'batch.alter_column("name", existing_type=sa.String(80), type_=sa.Text())',
        'batch.alter_column("name", existing_type=sa.Text(), type_=sa.String(80))',
    ),
    "rename_column": (
        'batch.alter_column("name", existing_type=sa.String(80), new_column_name="title")',
        'batch.alter_column("title", existing_type=sa.String(80), new_column_name="name")',
    ),
    "add_unique": (
        'batch.create_unique_constraint(op.f("uq_{parent}_name"), ["name"])',
        'batch.drop_constraint(op.f("uq_{parent}_name"), type_="unique")',
    ),
    "drop_unique": (
        'batch.drop_constraint(op.f("uq_{parent}_code"), type_="unique")',
        'batch.create_unique_constraint(op.f("uq_{parent}_code"), ["code"])',
    ),
    "add_check": (
        'batch.create_check_constraint(op.f("ck_{parent}_name"), "name <> \'\'")',
        'batch.drop_constraint(op.f("ck_{parent}_name"), type_="check")',
    ),
    "drop_check": (
        'batch.drop_constraint(op.f("ck_{parent}_code"), type_="check")',
        'batch.create_check_constraint(op.f("ck_{parent}_code"), "code <> \'\'")',
    ),
    "add_index": (
        'batch.create_index(op.f("ix_{parent}_code"), ["code"])',
        'batch.drop_index(op.f("ix_{parent}_code"))',
    ),
    "drop_index": (
        'batch.drop_index(op.f("ix_{parent}_name"))',
        'batch.create_index(op.f("ix_{parent}_name"), ["name"])',
    ),
    "rename_table": ('op.rename_table("{parent}", "{parent}_new")', 'op.rename_table("{parent}_new", "{parent}")'),
}
# The same for the table whose rows refer to others.
CHILD_CHANGES = {
    "drop_foreign_key": (
        'batch.drop_constraint(op.f("fk_{child}"), type_="foreignkey")',
        'batch.create_foreign_key(op.f("fk_{child}"), "{parent}", {columns}, {referred}, ondelete={ondelete!r})',
    ),
    "require_parent": (
        'batch.alter_column("note", existing_type=sa.String(80), nullable=False)',
        'batch.alter_column("note", existing_type=sa.String(80), nullable=True)',
    ),
}
SHAPES = {
    "simple": (["parent_id"], ["id"]),
    "self": (["parent_id"], ["id"]),
    "composite": (["parent_id", "parent_part"], ["id", "part"]),
}


class Database(NamedTuple):
    """An empty database, and the project whose migrations it gets."""

    kind: str
    url: str
    project: Path

    @property
    def engine(self) -> Engine:
        url = make_url(self.url)
        return create_engine(url.set(drivername=DRIVERS.get(self.kind, "sqlite")), poolclass=NullPool)

    def flask(self, *words: str, check: bool = True) -> str:
        """Run a command of the app, in debug mode, and return its output."""
        flask = self.project / BIN / "flask"
        return run(flask, "--debug", "db", *words, cwd=self.project, check=check, DATABASE_URL=self.url).stdout

    def write(self, name: str, up: str, down: str = "pass", parent: str | None = None) -> None:
        """Write a migration."""
        text = MIGRATION.format(name=name, parent=parent, up=up, down=down)
        (self.project / "migrations" / "versions" / f"{name}.py").write_text(text)

    def execute(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def state(self) -> dict[str, Any]:
        """Return the rows of each table, and its columns, constraints and indexes."""
        engine, metadata = self.engine, MetaData()
        metadata.reflect(engine)
        with engine.connect() as connection:
            return {
                table.name: {
                    "rows": [tuple(row) for row in connection.execute(select(table).order_by(*table.columns[:2]))],
                    "columns": [(column.name, str(column.type), column.nullable) for column in table.columns],
                    "constraints": sorted(map(describe_constraint, table.constraints)),
                    "indexes": sorted(str(index.name) for index in table.indexes),
                }
                for table in metadata.sorted_tables
                if table.name != "alembic_version"
            }


def describe_constraint(constraint: Constraint) -> str:
    """Return what a migration must not lose of a constraint."""
    words: list[object] = [constraint.__visit_name__, constraint.name]
    if isinstance(constraint, ForeignKeyConstraint):
        words += [constraint.column_keys, constraint.referred_table.name, constraint.ondelete]
    return " ".join(map(str, words))


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def project(kind: str, questionnaire: Questionnaire, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project for a kind of database, without models."""
    folder = tmp_path_factory.mktemp("migrations") / "myapp"
    questionnaire.write(folder, database=kind, tour=False)
    install(folder)
    return folder


@pytest.fixture
def database(kind: str, project: Path, tmp_path: Path) -> Iterator[Database]:
    models, versions = project / "src" / "myapp" / "models.py", project / "migrations" / "versions"
    text = models.read_text()
    with empty_database(kind) if kind in SERVERS else nullcontext(f"sqlite:///{tmp_path / 'test.db'}") as url:
        yield Database(kind, url, project)
    models.write_text(text)
    for file in versions.glob("*.py"):
        file.unlink()


def add_tables(metadata: MetaData, name: str, shape: str, ondelete: str | None) -> tuple[Table, Table]:
    """Define a table and the one whose rows refer to it, which may be the same."""
    columns, referred = SHAPES[shape]
    parent = name if shape == "self" else f"{name}_p"
    reference: list[SchemaItem] = [
        *(Column(column, Integer) for column in columns),
        Column("note", String(80)),
        ForeignKeyConstraint(columns, [f"{parent}.{column}" for column in referred], f"fk_{name}", ondelete=ondelete),
    ]
    own = Table(
        parent,
        metadata,
        *(Column(column, Integer, primary_key=True, autoincrement=False) for column in referred),
        Column("name", String(80)),
        Column("code", String(80)),
        *(reference if shape == "self" else []),
        Column("unused", String(20)),
        UniqueConstraint("code", name=f"uq_{parent}_code"),
        CheckConstraint("code <> ''", name=f"ck_{parent}_code"),
        Index(f"ix_{parent}_name", "name"),
    )
    if shape == "self":
        return own, own
    return own, Table(name, metadata, Column("id", Integer, primary_key=True), *reference)


@pytest.mark.slow
def test_rows_survive_every_change_with_every_ondelete(database: Database) -> None:
    metadata = MetaData()
    up: list[str] = []
    down: list[str] = []
    inserts: list[tuple[Table, list[dict[str, Any]]]] = []
    changes = PARENT_CHANGES | CHILD_CHANGES
    for change, shape, rule in AllPairs([list(changes), list(SHAPES), list(ONDELETE)]):
        name = f"{change}_{shape}_{rule}"
        columns, referred = SHAPES[shape]
        parent, child = add_tables(metadata, name, shape, ONDELETE[rule])
        names = {
            "parent": parent.name,
            "child": child.name,
            "columns": columns,
            "referred": referred,
            "ondelete": ONDELETE[rule],
        }
        changed = parent if change in PARENT_CHANGES else child
        for statements, code in zip((up, down), changes[change], strict=True):
            if "batch." in code:
                statements.append(f'with op.batch_alter_table("{changed.name}") as batch:')
                statements.append(f"    {code.format_map(names)}")
            else:
                statements.append(code.format_map(names))
        keys: list[dict[str, Any]] = [dict.fromkeys(referred, number) for number in (1, 2, 3)]
        references: list[dict[str, Any]] = [
            dict.fromkeys(columns, number) | {"note": "naïve 🎩"} for number in (None, 1, 2)
        ]
        rows = [key | {"name": f"Ada {key['id']}", "code": str(key["id"])} for key in keys]
        if parent is child:
            inserts.append((parent, [row | reference for row, reference in zip(rows, references, strict=True)]))
        else:
            inserts += [(parent, rows), (child, [{"id": 3 - i} | row for i, row in enumerate(references)])]
    metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        for table, rows in inserts:
            for row in rows:
                connection.execute(table.insert().values(row))
    database.write("change", "\n    ".join(up), "\n    ".join(down))
    before = database.state()
    assert len(before) == len(metadata.tables)

    database.flask("upgrade")
    upgraded = database.state()
    database.flask("downgrade")
    downgraded = database.state()
    database.flask("upgrade")

    for name, table in upgraded.items():
        old = before[name.removesuffix("_new")]
        assert len(table["rows"]) == len(old["rows"]) == 3, name
        for row, old_row in zip(table["rows"], old["rows"], strict=True):
            assert all(value == old_value for value, old_value in zip(row, old_row, strict=False)), name
    for name, table in downgraded.items():
        assert table == before[name], name
    assert downgraded.keys() == before.keys()
    assert database.state() == upgraded


ON_SQLITE = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
ON_TRANSACTIONAL = pytest.mark.parametrize(
    "kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
LIBRARY = '''

class {rule}Author(Base):
    """An author."""

    __tablename__ = "{rule}_author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str{optional}] = mapped_column(String(80))


class {rule}Book(Base):
    """A book."""

    __tablename__ = "{rule}_book"

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("{rule}_author.id", ondelete={ondelete!r}))
'''
# Two authors, one of them without a name, and their books.
TABLES = (
    "CREATE TABLE author (id INTEGER PRIMARY KEY, name VARCHAR(80))",
    "CREATE TABLE book (id INTEGER PRIMARY KEY, author_id INTEGER,"
    " CONSTRAINT fk_book_author_id_author FOREIGN KEY (author_id) REFERENCES author (id))",
    "INSERT INTO author VALUES (1, 'Ada'), (2, NULL)",
    "INSERT INTO book VALUES (1, 1), (2, 2)",
)
REQUIRE_NAME = (
    'op.create_table("early", sa.Column("id", sa.Integer))\n    op.add_column("book", sa.Column("title", sa.Text))\n'
    '    op.execute("INSERT INTO early VALUES (1)")\n    with op.batch_alter_table("author") as batch:\n'
    '        batch.alter_column("name", existing_type=sa.String(80), nullable=False)'
)


def add_models(project: Path, text: str) -> None:
    """Add models, and the imports that they need."""
    models = project / "src" / "myapp" / "models.py"
    imports = models.read_text().replace("DeclarativeBase\n", "DeclarativeBase, Mapped, mapped_column\n", 1)
    models.write_text(imports.replace("import MetaData\n", "import ForeignKey, MetaData, String\n", 1) + text)


def test_generated_migration_keeps_rows(database: Database) -> None:
    text = "".join(
        LIBRARY.format(rule=rule.title(), ondelete=ondelete, optional=" | None") for rule, ondelete in ONDELETE.items()
    )
    add_models(database.project, text)
    database.flask("migrate", "--message", "add")
    database.flask("upgrade")
    for rule in ONDELETE:
        quote = "`" if database.kind == "mysql" else '"'
        author, book = (f"{quote}{rule.title()}_{table}{quote}" for table in ("author", "book"))
        database.execute(
            f"INSERT INTO {author} (id, name) VALUES (1, 'Ada'), (2, 'Grace')",
            f"INSERT INTO {book} (id, author_id) VALUES (1, 1), (2, 2)",
        )
    before = database.state()
    models = database.project / "src" / "myapp" / "models.py"
    models.write_text(models.read_text().replace("name: Mapped[str | None]", "name: Mapped[str]"))

    database.flask("migrate", "--message", "require")
    database.flask("upgrade")
    after = database.state()
    database.flask("check")
    database.flask("downgrade")

    assert {name: table["rows"] for name, table in after.items()} == {
        name: table["rows"] for name, table in before.items()
    }
    assert after != before
    assert database.state() == before


@ON_TRANSACTIONAL
@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
def test_failed_migration_changes_nothing_and_can_be_repeated(database: Database, direction: str) -> None:
    up, down = (REQUIRE_NAME, "pass") if direction == "upgrade" else ("pass", REQUIRE_NAME)
    database.write("first", "pass")
    database.write("change", up, down, parent="first")
    database.execute(*TABLES)
    database.flask("upgrade", "first" if direction == "upgrade" else "head")
    before = database.state()

    printed = [database.flask(direction, check=False) for _ in range(2)]

    assert all(re.search("(IntegrityError|NotNullViolation).*author", text, re.DOTALL) for text in printed)
    assert database.state() == before
    database.execute("UPDATE author SET name = 'Grace' WHERE id = 2")
    database.flask(direction)
    assert database.state()["book"]["rows"] == [(1, 1, None), (2, 2, None)]


def test_migration_that_leaves_rows_without_their_parent_is_refused(database: Database) -> None:
    database.write("change", 'op.execute("DELETE FROM author WHERE id = 2")')
    database.execute(*TABLES)
    before = database.state()

    printed = database.flask("upgrade", check=False)

    assert "book" in printed.rpartition("Error")[2]
    assert database.state() == before
    assert "change" not in database.flask("current")
    if database.kind == "sqlite":
        assert "row 2 of book (to author)" in printed
        assert "Traceback" not in printed


@pytest.mark.slow
@ON_SQLITE
def test_row_that_had_no_parent_before_is_named(database: Database) -> None:
    """SQLite's own shell does not check foreign keys by default."""
    database.write("change", 'op.add_column("book", sa.Column("title", sa.Text))')
    database.execute(*TABLES, "UPDATE book SET author_id = 3 WHERE id = 1")
    before = database.state()

    assert "row 1 of book (to author)" in database.flask("upgrade", check=False)

    assert database.state() == before
    database.flask("stamp", "head")
    database.flask("stamp", "base")
    database.execute("DELETE FROM book WHERE id = 1")
    database.flask("upgrade")


@ON_SQLITE
def test_index_on_an_expression_is_not_lost_with_a_rebuilt_table(database: Database) -> None:
    """Alembic does not copy it: two users could then sign up with one address."""
    create = 'op.create_index("ix_author_name", "author", [sa.text("lower(name)")], unique=True)'
    database.write("change", REQUIRE_NAME)
    database.execute(
        *TABLES,
        "UPDATE author SET name = 'Grace' WHERE id = 2",
        "CREATE UNIQUE INDEX ix_author_name ON author (lower(name))",
    )

    refused = database.flask("upgrade", check=False)
    database.write("change", f'op.drop_index("ix_author_name", "author")\n    {REQUIRE_NAME}\n    {create}')
    database.flask("upgrade")

    assert "ix_author_name. Rebuilding the table would lose the index" in refused
    assert "Traceback" not in refused
    with pytest.raises(IntegrityError):
        database.execute("INSERT INTO author VALUES (3, 'ada')")


@ON_SQLITE
def test_check_without_a_name_is_not_lost_with_a_rebuilt_table(database: Database) -> None:
    """As ``Enum(create_constraint=True)`` makes it."""
    database.write("change", REQUIRE_NAME)
    database.execute(
        TABLES[0].replace("name VARCHAR(80)", "name VARCHAR(80) CHECK (name <> 'Eve')"),
        *TABLES[1:],
        "UPDATE author SET name = 'Grace' WHERE id = 2",
    )

    refused = database.flask("upgrade", check=False)
    passed = 'batch_alter_table("author", table_args=[sa.CheckConstraint("name <> \'Eve\'", name="not_eve")])'
    database.write("change", REQUIRE_NAME.replace('batch_alter_table("author")', passed))
    database.flask("upgrade")

    assert "table_args" in refused
    assert "Traceback" not in refused
    with pytest.raises(IntegrityError):
        database.execute("INSERT INTO author VALUES (3, 'Eve')")


REBUILD = """with op.batch_alter_table("{name}", recreate="always") as batch:
        batch.add_column(sa.Column("new", sa.Text))"""


@ON_SQLITE
def test_rebuilt_table_keeps_its_definition(database: Database) -> None:
    """Alembic itself keeps none of this."""
    database.execute(
        "CREATE TABLE author (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, price NUMERIC(10, 2),"
        ' [nick] VARCHAR(20) DEFAULT \',(\' COLLATE nocase, "a b" TEXT COLLATE "RTRIM",'
        " is_autoincrement TEXT CONSTRAINT ck CHECK ('x' = 'X' COLLATE NOCASE),"
        " twice INTEGER GENERATED ALWAYS AS (id * 2) STORED)",
        "CREATE TABLE book (name TEXT PRIMARY KEY, is_strict TEXT) WITHOUT ROWID",
        "CREATE TABLE page (id INTEGER PRIMARY KEY, is_autoincrement TEXT COLLATE NOCASE) STRICT",
        "INSERT INTO author (id, nick) VALUES (1, 'ada'), (7, 'eve')",
        "DELETE FROM author WHERE id = 7",
    )
    database.write("change", "\n    ".join(REBUILD.format(name=name) for name in ("author", "book", "page")))

    database.flask("upgrade")

    with database.engine.connect() as connection:
        created = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE type = 'table' ORDER BY name")
        author, book, page = [sql for (sql,) in created if "new" in sql]
    assert "PRIMARY KEY AUTOINCREMENT" in author
    assert {"nick VARCHAR(20) COLLATE nocase", '"a b" TEXT COLLATE "RTRIM"'} <= {
        *re.findall(r"\S.* COLLATE [^ ,]+", author)
    }
    assert author.count("COLLATE") == 3
    assert "GENERATED ALWAYS AS (id * 2) STORED" in author
    assert "WITHOUT ROWID" in book
    assert page.split()[-1] == "STRICT"
    assert page.count("AUTOINCREMENT") == 0
    database.execute("INSERT INTO author (nick) VALUES ('grace')")
    assert [row[:3:2] + row[-2:] for row in database.state()["author"]["rows"]] == [
        (1, "ada", 2, None),
        (8, "grace", 16, None),
    ]


@ON_SQLITE
@pytest.mark.parametrize(
    ("change", "error", "before", "after"),
    [
        (
            "CREATE TRIGGER t AFTER INSERT ON author BEGIN SELECT 1; END",
            "Rebuilding author would lose the trigger t: drop it in the migration",
            "DROP TRIGGER t",
            "CREATE TRIGGER t AFTER INSERT ON author BEGIN SELECT 1; END",
        ),
        (
            "CREATE TRIGGER t AFTER INSERT ON book BEGIN DELETE FROM author; END",
            "error in trigger t: no such table: main.author. Drop the view or trigger in the migration",
            "DROP TRIGGER t",
            "CREATE TRIGGER t AFTER INSERT ON book BEGIN DELETE FROM author; END",
        ),
        (
            "CREATE VIEW v AS SELECT name FROM author",
            "error in view v: no such table: main.author. Drop the view or trigger in the migration",
            "DROP VIEW v",
            "CREATE VIEW v AS SELECT name FROM author",
        ),
        ("UNIQUE (name COLLATE NOCASE)", "Rebuilding author would lose COLLATE. Pass", "", ""),
        ("c TEXT DEFAULT ',' UNIQUE", "Rebuilding author would lose UNIQUE. Pass", "", ""),
        ("UNIQUE (name) ON CONFLICT REPLACE", "Rebuilding author would lose ON CONFLICT. Pass", "", ""),
    ],
    ids=[
        "trigger",
        "trigger of another table",
        "view",
        "collation of a constraint",
        "constraint that SQLAlchemy cannot parse",
        "conflict clause",
    ],
)
def test_rebuild_that_loses_part_of_the_definition_is_refused(
    database: Database, change: str, error: str, before: str, after: str
) -> None:
    constraint = "" if after else f", {change}"
    database.execute(
        TABLES[0].replace("VARCHAR(80))", f"VARCHAR(80){constraint})"), TABLES[1], *([] if constraint else [change])
    )
    database.write("change", REBUILD.format(name="author"))
    state = database.state()

    refused = database.flask("upgrade", check=False)

    assert error in refused
    assert "Traceback" not in refused
    assert database.state() == state
    rebuild = REBUILD.format(name="author")
    if constraint:
        columns = 'sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(80))'
        rebuild = rebuild.replace("recreate", f'copy_from=sa.Table("author", sa.MetaData(), {columns}), recreate')
    else:
        rebuild = f'op.execute("{before}")\n    {rebuild}\n    op.execute("{after}")'
    database.write("change", rebuild)
    database.flask("upgrade")


@ON_SQLITE
def test_command_that_only_reads_does_not_wait_for_a_writer(database: Database) -> None:
    database.execute(*TABLES, "CREATE TABLE _alembic_tmp_author (id INTEGER)")
    add_models(database.project, "")
    database.write("first", "op.drop_table('book')\n    op.drop_table('author')")
    database.flask("upgrade")
    database.execute("CREATE TABLE _alembic_tmp_alembic_version (id INTEGER)")

    with database.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        printed = [database.flask(command, check=False) for command in ("current", "check", "migrate")]
        doctor = run(
            database.project / BIN / "flask", "doctor", cwd=database.project, check=False, DATABASE_URL=database.url
        ).stdout
    assert "first (head)" in printed[0]
    assert not any("locked" in text for text in [*printed, doctor])
    assert "_alembic_tmp_alembic_version" in database.state()


@pytest.mark.slow
@ON_SQLITE
def test_leftover_of_an_earlier_failed_migration_is_dropped(database: Database) -> None:
    database.write("change", REQUIRE_NAME)
    database.execute(
        *TABLES,
        "UPDATE author SET name = 'Grace' WHERE id = 2",
        "CREATE TABLE _alembic_tmp_author (id INTEGER)",
        "CREATE TABLE _alembic_tmp_lost (id INTEGER)",  # without its original, the only copy of the rows
    )

    database.flask("upgrade")

    state = database.state()
    assert state.keys() == {"author", "book", "early", "_alembic_tmp_lost"}
    assert state["book"]["rows"] == [(1, 1, None), (2, 2, None)]


@pytest.mark.slow
@ON_SQLITE
def test_migration_can_leave_the_transaction(database: Database) -> None:
    vacuum = 'with op.get_context().autocommit_block():\n        op.execute("VACUUM")'
    database.write("change", f"{vacuum}\n    {REQUIRE_NAME}")
    database.execute(*TABLES, "UPDATE author SET name = 'Grace' WHERE id = 2")

    database.flask("upgrade")

    assert database.state()["book"]["rows"] == [(1, 1, None), (2, 2, None)]


@pytest.mark.slow
@ON_SQLITE
def test_foreign_keys_are_enforced_after_a_migration(database: Database) -> None:
    """In one process, as a test suite migrates: the connection is used again, even after an error."""
    database.write("first", "op.create_table('first', sa.Column('id', sa.Integer))")
    database.write("second", "op.drop_table('unknown')", parent="first")
    script = """
from contextlib import suppress
from flask_migrate import upgrade
from sqlalchemy import text
from myapp import create_app
from myapp.database import db

app = create_app({"TESTING": True, "SQLALCHEMY_DATABASE_URI": "sqlite://"})
with app.app_context():
    for revision in ("first", "second"):
        with suppress(Exception):
            upgrade(revision=revision)
        print("foreign_keys =", db.session.scalar(text("PRAGMA foreign_keys")))
        db.session.remove()
    print(db.session.scalars(text("SELECT version_num FROM alembic_version")).all())
"""

    printed = run(database.project / BIN / "python", "-c", script, cwd=database.project).stdout

    assert printed.count("foreign_keys = 1") == 2
    assert "['first']" in printed


@pytest.mark.slow
def test_migrations_at_the_same_time_wait_for_each_other(database: Database) -> None:
    slow = "import time\n    time.sleep(2)"
    if database.kind == "postgresql":  # ends the transaction
        slow += '\n    with op.get_context().autocommit_block():\n        op.execute("SELECT 1")'
    database.write("change", f"{slow}\n    {REQUIRE_NAME}")
    database.execute(*TABLES, "UPDATE author SET name = 'Grace' WHERE id = 2")

    with ThreadPoolExecutor(8) as pool:
        printed = list(pool.map(database.flask, ["upgrade"] * 8))

    assert sum("Running upgrade" in text for text in printed) == 1
    if database.kind in SERVERS:
        assert sum("Waiting for another migration" in text for text in printed) == 7
    database.flask("downgrade", "base")


@pytest.mark.slow
def test_migration_has_no_time_limit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    if database.kind not in SERVERS:
        pytest.skip("SQLite has no limit for statements")
    monkeypatch.setenv("FLASK_DATABASE_STATEMENT_SECONDS", "1")
    sleep = {"postgresql": "pg_sleep(4)", "mysql": "SLEEP(4)"}[database.kind]
    database.write("slow", f'op.execute("CREATE TABLE slow AS SELECT 1 AS id")\n    op.execute("SELECT {sleep}")')

    database.flask("upgrade")

    assert "slow" in database.flask("current")


@pytest.mark.slow
@ON_SQLITE
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Report", "class Report(Base):\n    {table}\n    {key}\n    {column}"),
        ("Report", "class Report(db.Model):\n    {table}\n    {key}\n    {column}"),
        ("report", 'db.Table("report", Column("id", Integer), bind_key="archive")'),
    ],
    ids=["Base", "db.Model", "db.Table"],
)
def test_table_of_another_database_is_refused(database: Database, name: str, code: str) -> None:
    module, environment = database.project / "src" / "myapp" / "home.py", database.project / "migrations" / "env.py"
    text, settings = module.read_text(), environment.read_text()
    module.write_text(
        f"{text}\nfrom sqlalchemy import Column, Integer\nfrom sqlalchemy.orm import Mapped, mapped_column\n"
        "from .database import db\nfrom .models import Base\n\n"
        + code.format(
            table='__tablename__ = "report"',
            key='__bind_key__ = "archive"',
            column="id: Mapped[int] = mapped_column(primary_key=True)",
        )
    )
    try:
        for command in ("migrate", "check"):
            printed = database.flask(command, check=False)
            assert f"Error: {name} has the bind key 'archive'" in printed
        assert not list((database.project / "migrations" / "versions").glob("*.py"))
        database.flask("upgrade")
        environment.write_text(settings.replace("set[str] = set()", 'set[str] = {"archive"}'))
        # Flask-SQLAlchemy reads the key of what derives from its own classes only.
        assert ("nothing to migrate" in database.flask("migrate")) is ("(Base)" not in code)
    finally:
        module.write_text(text)
        environment.write_text(settings)


def test_required_column_for_existing_rows_names_the_fix(database: Database) -> None:
    if database.kind == "mysql":
        pytest.skip("MariaDB fills the column with 0 or an empty string")
    database.write("first", "op.create_table('note', sa.Column('id', sa.Integer(), primary_key=True))")
    database.flask("upgrade")
    database.execute("INSERT INTO note (id) VALUES (1)")
    database.write("body", "op.add_column('note', sa.Column('body', sa.Integer(), nullable=False))", parent="first")

    printed = database.flask("upgrade", check=False)

    assert "Traceback" not in printed
    assert "give it a server_default" in printed


@ON_SQLITE
def test_error_names_the_command_that_fixes_it(database: Database) -> None:
    database.write("first", "pass")

    def error(*words: str) -> str:
        printed = database.flask(*words, check=False)
        assert "Traceback" not in printed
        return printed.rpartition("Error: ")[2]

    for command in ("migrate", "check"):
        assert "flask db upgrade" in error(command)
    database.flask("upgrade")
    database.write("left", "pass", parent="first")
    database.write("right", "pass", parent="first")
    assert "flask db merge heads" in error("upgrade")
    database.flask("merge", "heads")
    database.flask("upgrade")
    database.write("unnamed", "op.create_table('a', sa.Column('b'), sa.CheckConstraint('b > 0'))", parent="first")
    assert 'Give each CheckConstraint of the migration a name: name="..."' in error("upgrade", "unnamed")
    (database.project / "migrations" / "versions" / "unnamed.py").unlink()
    database.execute("UPDATE alembic_version SET version_num = 'unknown'")
    for command in ("upgrade", "downgrade", "migrate", "check", "current"):
        assert "migrations/versions" in error(command)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not allow these characters")
@pytest.mark.slow
def test_commands_work_in_a_directory_with_any_name(questionnaire: Questionnaire, tmp_path: Path) -> None:
    project = tmp_path / "50% off %(here)s [a] $HOME #1; naïve 🎩" / "myapp"
    questionnaire.write(project, database="sqlite")
    flask = install(project) / "flask"

    for command in ("upgrade", "check", "migrate", "current", "history", "revision", "upgrade", "downgrade", "heads"):
        printed = run(flask, "--debug", "db", command, cwd=project).stdout
    assert "head" in printed
    assert (project / "instance" / "myapp.db").exists()
    run(project / BIN / "pytest", "-q", "tests/test_database.py", cwd=project)


@pytest.fixture
def named_project(kind: str, questionnaire: Questionnaire, tmp_path: Path) -> Iterator[Path]:
    """A project as it is by default, named so that no other database has the name."""
    name = f"readme_{secrets.token_hex(6)}"
    project = tmp_path / name
    questionnaire.write(project, database=kind, package_name=name)
    yield project
    if kind in SERVERS:
        execute(kind, f"DROP DATABASE IF EXISTS {name}")


def client_settings(kind: str, name: str) -> dict[str, Any]:
    """Return variables that point the clients at the tests' server, for a machine where it is not the default."""
    if kind not in SERVERS:
        return {}
    url = urlsplit(server(kind))
    host, port, user = url.hostname or "", str(url.port or ""), url.username or ""
    if kind == "mysql":
        settings = {"MYSQL_HOST": host, "MYSQL_TCP_PORT": port, "MYSQL_PWD": url.password or ""}
        return settings | {"DATABASE_URL": url._replace(path=f"/{name}").geturl()}
    return {"PGHOST": host, "PGPORT": port, "PGUSER": user, "PGPASSWORD": url.password or ""}


def add_note(project: Path) -> None:
    models = project / "src" / project.name / "models.py"
    text = models.read_text().replace("DeclarativeBase\n", "DeclarativeBase, Mapped, mapped_column\n", 1)
    models.write_text(text + MODEL)


def test_commands_of_the_readme_work_in_its_order(named_project: Path, kind: str) -> None:
    readme = (named_project / "README.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", readme.partition("\n## Test it")[0], re.MULTILINE | re.DOTALL)
    lines = [
        line for block in blocks for line in block.splitlines() if "flask run" not in line and "copier" not in line
    ]
    lines = [line for line in lines if line.startswith(("uv ", "createdb ", "mariadb "))]
    settings = client_settings(kind, named_project.name)

    for line in lines[: lines.index(next(line for line in lines if "Remove the guestbook" in line))]:
        if "what changed" in line:
            add_note(named_project)
        run("bash", "-euc", line, cwd=named_project, **settings)

    assert any("what changed" in line for line in lines)
    run("uv", "run", "flask", "db", "check", cwd=named_project, **settings)
    assert len(list((named_project / "migrations" / "versions").glob("*.py"))) == 2


@ON_SQLITE
def test_commands_of_the_home_page_work_in_its_order(named_project: Path) -> None:
    page = (named_project / "src" / named_project.name / "templates" / "home.html").read_text()
    step = page.partition("<h3>Add a model</h3>")[2].partition("</li>")[0]
    flask = install(named_project) / "flask"

    for code in re.findall(r"<code>(.*?)</code>", step):
        if code.startswith("flask "):
            run(flask, *code.split()[1:], cwd=named_project)
        else:
            assert (named_project / code.replace("<wbr>", "")).is_file()
            add_note(named_project)

    run(flask, "db", "check", cwd=named_project)
    assert len(list((named_project / "migrations" / "versions").glob("*.py"))) == 2
