"""A project on a real database server: its migrations, and what visitors notice when the server drops them."""

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest
from conftest import run
from questionnaire import Questionnaire
from test_server import SECRET, free_port, serving
from test_suites import MODEL, SERVERS, empty_database, execute, install, server
from test_tour import FORM, PROBLEM, ask

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="gunicorn is not for Windows"),
]
CONNECTIONS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = '{name}'",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = '{name}'",
}
KILL = {"postgresql": "SELECT pg_terminate_backend({id})", "mysql": "KILL {id}"}
NOTE = """
from sqlalchemy import select
from myapp import create_app
from myapp.database import db
from myapp.models import Note
from myapp.tour.guestbook import Entry

with create_app().app_context():
    db.session.add_all([Note(text="naïve 🎩"), Entry(name="Ada", message="Hello")])
    db.session.commit()
    db.session.remove()
    print(db.session.scalars(select(Note.text)).one(), db.session.scalars(select(Entry.name)).one())
"""


class Database(NamedTuple):
    """A database of a test's own, on a server, and the project that uses it."""

    kind: str
    url: str
    project: Path

    def flask(self, *words: str) -> str:
        """Run a command of the app."""
        flask = self.project / ".venv" / "bin" / "flask"
        return run(flask, *words, cwd=self.project, DATABASE_URL=self.url).stdout

    def drop_connections(self) -> int:
        """Have the server end every connection to the database, which it does in its own time."""
        ended = self.connections()
        if ended:
            execute(self.kind, *(KILL[self.kind].format(id=number) for number in ended))
        deadline = time.monotonic() + 10
        while ended & self.connections():
            assert time.monotonic() < deadline, "the server keeps connections that it was told to end"
        return len(ended)

    def connections(self) -> set[int]:
        """The numbers of the connections to the database."""
        name = urlsplit(self.url).path.removeprefix("/")
        return {number for (number,) in execute(self.kind, CONNECTIONS[self.kind].format(name=name))}


@pytest.fixture(scope="module", params=SERVERS)
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of server, where there is one."""
    server(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def project(kind: str, questionnaire: Questionnaire, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project for that server, with the tour, whose guestbook uses it."""
    folder = tmp_path_factory.mktemp("databases") / "myapp"
    questionnaire.write(folder, database=kind)
    install(folder)
    return folder


@pytest.fixture
def database(kind: str, project: Path) -> Iterator[Database]:
    """A fresh database."""
    with empty_database(kind) as url:
        made = Database(kind, url, project)
        yield made
        made.drop_connections()


def test_default_address_is_that_of_createdb(project: Path, kind: str, tmp_path: Path) -> None:
    """A socket, in the folder that PGHOST names too."""
    if kind != "postgresql":
        pytest.skip("MariaDB and MySQL let nobody in without a name")

    done = run(project / ".venv" / "bin" / "flask", "db", "upgrade", cwd=project, check=False, PGHOST=str(tmp_path))

    assert done.returncode
    assert f'connection to server on socket "{tmp_path}/.s.PGSQL.5432" failed' in done.stdout


def test_statements_of_the_readme_take_any_name(questionnaire: Questionnaire, kind: str, tmp_path: Path) -> None:
    """A word of SQL too. The server reads them, and executes none."""
    if kind != "mysql":
        pytest.skip("createdb and createuser take a name as it is")
    readme = questionnaire.project(package_name="order", database=kind, proxy_fix=True)["README.md"].decode()
    block = re.search(r"<<SQL [^\n]*\n(.*?\nSQL)\n", readme, re.DOTALL)
    assert block

    statements = run("bash", "-euc", f"cat <<SQL\n{block[1]}", cwd=tmp_path, password="secret").stdout.splitlines()

    assert len(statements) == 3
    for statement in statements:
        execute(kind, f'PREPARE statement FROM "{statement}"')


def test_migrations_go_up_and_down_with_data(database: Database) -> None:
    models = database.project / "src" / "myapp" / "models.py"
    text = models.read_text().replace("DeclarativeBase\n", "DeclarativeBase, Mapped, mapped_column\n", 1)
    models.write_text(
        (text + MODEL)
        .replace("unique=True", "String(80), unique=True")
        .replace("import MetaData", "import MetaData, String")
    )
    python = database.project / ".venv" / "bin" / "python"

    def use() -> str:
        return run(python, "-c", NOTE, cwd=database.project, DATABASE_URL=database.url, FLASK_SECRET_KEY=SECRET).stdout

    database.flask("db", "upgrade")
    database.flask("db", "migrate", "--message", "add notes")
    (migration,) = (database.project / "migrations" / "versions").glob("*_add_notes.py")
    assert "down_revision = None" not in migration.read_text()
    for _ in range(2):  # down to nothing, and up again
        database.flask("db", "upgrade")
        database.flask("db", "check")
        assert use().split("\n")[-2] == "naïve 🎩 Ada"
        database.flask("db", "downgrade")
        assert "(head)" not in database.flask("db", "current")
        database.flask("db", "downgrade", "base")


@contextmanager
def served(database: Database, url: str) -> Iterator[int]:
    """The port of gunicorn, as its own settings have it, with the guestbook ready to be signed."""
    database.flask("db", "upgrade")
    settings = {"DATABASE_URL": url, "FLASK_SECRET_KEY": SECRET}
    with serving(database.project, "gunicorn", "--bind=127.0.0.1:{port}", **settings) as port:
        yield port


def visit(port: int) -> list[int]:
    """Have many visitors read the guestbook at once, and list the statuses that they get."""
    with ThreadPoolExecutor(8) as visitors:
        return list(visitors.map(lambda _: ask(port, "/tour/guestbook").status, range(16)))


def test_connection_that_the_server_ends_costs_nobody_an_error(database: Database) -> None:
    line = urlencode({"name": "Ada", "message": "Hello 🎩"})

    with served(database, database.url) as port:
        assert set(visit(port)) == {200}
        for number in (1, 2):
            assert database.drop_connections() > 0
            if number == 2:  # the first statement after it may write, too
                assert ask(port, "/tour/guestbook", "POST", line, FORM).status in (302, 303)
                assert "Hello 🎩" in ask(port, "/tour/guestbook").body
            assert set(visit(port)) == {200}
        assert database.drop_connections() > 0
        assert ask(port, "/up/database").status == 200
    assert '"ERROR"' not in (database.project / f"server-{port}.log").read_text()


class Wire:
    """A way to a server that can be cut, and can be made to carry nothing."""

    def __init__(self, host: str, port: int) -> None:
        self.server = (host, port)
        self.port = free_port()
        self.flows = Event()
        self.flows.set()
        self.ends: list[socket.socket] = []
        self.mend()

    def mend(self) -> None:
        """Take connections."""
        self.listener = socket.create_server(("127.0.0.1", self.port))
        Thread(target=self.take, args=[self.listener], daemon=True).start()

    def cut(self) -> None:
        """End every connection, and take no more."""
        for end in (self.listener, *self.ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.ends.clear()

    def take(self, listener: socket.socket) -> None:
        """Connect whoever comes to the server."""
        with suppress(OSError):
            while True:
                client, _address = listener.accept()
                server = socket.create_connection(self.server)
                self.ends += [client, server]
                for ends in ((client, server), (server, client)):
                    Thread(target=self.carry, args=ends, daemon=True).start()

    def carry(self, source: socket.socket, target: socket.socket) -> None:
        """Pass on what comes from one end to the other."""
        with suppress(OSError):
            while data := source.recv(65536):
                self.flows.wait()
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(database: Database) -> Iterator[Wire]:
    """The way from the app to its server."""
    address = urlsplit(database.url)
    wire = Wire(address.hostname or "", address.port or 0)
    yield wire
    wire.flows.set()
    wire.cut()


def test_outage_is_told_and_ends_by_itself(database: Database, wire: Wire) -> None:
    url = re.sub(r":\d+/", f":{wire.port}/", database.url)

    def assert_down(port: int) -> None:
        answer = ask(port, "/up/database")
        assert answer.status == 503
        assert answer.headers["content-type"] == PROBLEM
        assert json.loads(answer.body)["status"] == 503
        assert ask(port, "/up").status == ask(port, "/").status == 200

    def assert_up(port: int) -> None:
        assert ask(port, "/up/database").status == 200
        assert set(visit(port)) == {200}

    with served(database, url) as port:
        assert_up(port)
        wire.cut()
        assert_down(port)
        answer = ask(port, "/tour/guestbook")
        assert answer.status == 500
        assert 'class="error-code">500' in answer.body
        assert str(wire.port) not in answer.body
        assert_down(port)
        wire.mend()
        assert_up(port)

        wire.flows.clear()  # the server is there, and says nothing
        assert_down(port)
        wire.cut()
        wire.flows.set()
        assert_down(port)
        wire.mend()
        assert_up(port)
