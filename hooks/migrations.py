"""The owner's migrations at an update: what was committed stays as it was, and what is new comes last.

A migration that a database may have gone through is history. So an update changes none, deletes none that
another one or a database needs, and puts a new one behind the owner's, in one line.
"""

from __future__ import annotations

import ast
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

FOLDER = Path("migrations", "versions")


class Migration(NamedTuple):
    """A step of a database's history, and those it builds on."""

    revision: str
    parents: tuple[str, ...]


def read(source: str) -> Migration | None:
    """Read the two names in a migration's source that Alembic goes by."""
    found = {}
    with suppress(SyntaxError, ValueError):
        for statement in ast.parse(source).body:
            target = None
            if isinstance(statement, ast.Assign):
                target = statement.targets[0]
            elif isinstance(statement, ast.AnnAssign):
                target = statement.target
            if isinstance(target, ast.Name) and target.id in ("revision", "down_revision"):
                found[target.id] = ast.literal_eval(statement.value)  # type: ignore[attr-defined]
    if "revision" not in found:
        return None
    parents = found.get("down_revision") or ()
    return Migration(found["revision"], (parents,) if isinstance(parents, str) else tuple(parents))


def read_all(paths: Iterable[Path]) -> dict[Path, Migration]:
    """Read the migrations among some files."""
    found = {path: read(path.read_text("utf-8", "replace")) for path in paths}
    return {path: migration for path, migration in found.items() if migration}


def heads(migrations: Iterable[Migration]) -> list[str]:
    """Name the migrations that no other builds on."""
    migrations = list(migrations)
    parents = {parent for migration in migrations for parent in migration.parents}
    return sorted(migration.revision for migration in migrations if migration.revision not in parents)


def put_last(new: Path) -> None:
    """Let a new migration that starts a history of its own build on the owner's."""
    known = read_all(FOLDER.glob("*.py"))
    added = known.pop(new, None)
    by_name = {migration.revision: migration for migration in known.values()}
    ends = heads(known.values())
    if added and not added.parents and len(ends) == 1 and added.revision not in ancestors(ends, by_name):
        line = f'down_revision = "{ends[0]}"'.encode()
        new.write_bytes(re.sub(rb"^down_revision\b.*$", line, new.read_bytes(), count=1, flags=re.MULTILINE))


def ancestors(revisions: Iterable[str], known: Mapping[str, Migration]) -> set[str]:
    """Name some migrations and all that they build on."""
    waiting, found = list(revisions), set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += known[name].parents if name in known else ()
    return found


def nameless(source: str) -> list[int]:
    """List the lines of a model's unique constraints and indexes of several columns that have no name of their own."""
    lines = []
    with suppress(SyntaxError):
        for call in ast.walk(ast.parse(source)):
            if isinstance(call, ast.Call) and not any(keyword.arg == "name" for keyword in call.keywords):
                kind = ast.unparse(call.func).rpartition(".")[2]
                index = kind == "Index" and call.args and ast.unparse(call.args[0]) == "None"
                if (kind == "UniqueConstraint" and len(call.args) > 1) or (index and len(call.args) > 2):
                    lines.append(call.lineno)
    return sorted(lines)


def reached_here() -> list[str]:
    """Name the migrations at which the SQLite databases in the instance folder are."""
    names = []
    for path in Path("instance").rglob("*"):
        with suppress(OSError, sqlite3.Error), tempfile.TemporaryDirectory() as folder:
            if not path.is_file() or path.open("rb").read(16) != b"SQLite format 3\0":
                continue
            # A copy, because even reading would write beside a database that keeps a write-ahead log.
            copy = shutil.copy(path, Path(folder, "database"))
            with suppress(FileNotFoundError):
                shutil.copy(f"{path}-wal", f"{copy}-wal")
            with closing(sqlite3.connect(copy)) as connection:
                names += [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")]
    return names
