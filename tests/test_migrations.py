"""Migrations keep the rows of a database, up, down and up again; a failed one changes nothing."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

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
from test_suites import BIN, DRIVERS, SERVERS, empty_database, install

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
    words = [constraint.__visit_name__, constraint.name]
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
    reference = [
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


def test_rows_survive_every_change_with_every_ondelete(database: Database) -> None:
    metadata, up, down, inserts = MetaData(), [], [], []
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
        table = parent.name if change in PARENT_CHANGES else child.name
        for statements, code in zip((up, down), changes[change], strict=True):
            if "batch." in code:
                statements.append(f'with op.batch_alter_table("{table}") as batch:')
                statements.append(f"    {code.format_map(names)}")
            else:
                statements.append(code.format_map(names))
        keys = [dict.fromkeys(referred, number) for number in (1, 2, 3)]
        references = [dict.fromkeys(columns, number) | {"note": "naïve 🎩"} for number in (None, 1, 2)]
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
