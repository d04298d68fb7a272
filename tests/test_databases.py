"""A project on a real database server: its migrations, and what visitors notice when the server drops them."""

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple
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
# A page whose statement takes some seconds.
SLEEP = """

from sqlalchemy import text

from .database import db


@bp.get("/sleep/<int:seconds>")
def sleep(seconds: int) -> str:
    db.session.execute(text(f"SELECT {function}({{seconds}})"))
    return "done"
"""
SLEEP_FUNCTION = {"postgresql": "pg_sleep", "mysql": "SLEEP"}
RUNNING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(%' AND state = 'active'",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(%'",
}
# A user of one connection.
LIMITED_USER = {
    "postgresql": ["CREATE ROLE {name} LOGIN CONNECTION LIMIT 1"],
    "mysql": [
        "CREATE USER {name}@'%' WITH MAX_USER_CONNECTIONS 1",
        "GRANT ALL ON {name}.* TO {name}@'%'",
    ],
}
DROP_USER = {"postgresql": "DROP ROLE {name}", "mysql": "DROP USER {name}@'%'"}
POOLER = """
[databases]
* = host={host} port={port} user={login}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
auth_type = any
auth_file =
pool_mode = transaction
default_pool_size = 3
unix_socket_dir =
logfile = {folder}/pgbouncer.log
user = {user}
"""
# Short transactions of many threads, which a pooler spreads over its own connections.
TRANSACTIONS = """
from concurrent.futures import ThreadPoolExecutor
from sqlalchemy import text
from myapp import create_app
from myapp.database import db

app = create_app()

def work(number):
    for step in range(60):
        with app.app_context():
            assert db.session.scalar(text("SELECT :value"), {"value": step}) == step
            db.session.scalar(text("SELECT :value"), {"value": step})

with ThreadPoolExecutor(10) as threads:
    list(threads.map(work, range(10)))
"""
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
    home = folder / "src" / "myapp" / "home.py"
    home.write_text(home.read_text() + SLEEP.format(function=SLEEP_FUNCTION[kind]))
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
def served(database: Database, url: str, **settings: str) -> Iterator[int]:
    """The port of gunicorn, as its own settings have it, with the guestbook ready to be signed."""
    database.flask("db", "upgrade")
    settings |= {"DATABASE_URL": url, "FLASK_SECRET_KEY": SECRET}
    with serving(database.project, "gunicorn", "--bind=127.0.0.1:{port}", **settings) as port:
        yield port


def visit(port: int, path: str = "/tour/guestbook", visitors: int = 8, visits: int = 16) -> list[int]:
    """Have many visitors read a page at once, and list the statuses that they get."""
    with ThreadPoolExecutor(visitors) as threads:
        return list(threads.map(lambda _: ask(port, path).status, range(visits)))


def worker_threads(project: Path, port: int) -> int:
    """The number of threads of gunicorn's only worker."""
    (worker,) = re.findall(r"Booting worker with pid: (\d+)", (project / f"server-{port}.log").read_text())
    return len(list(Path("/proc", worker, "task").iterdir()))


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
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert 'class="error-code">503' in answer.body
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the threads of a process")
def test_concurrent_health_checks_agree_and_leak_nothing(database: Database, wire: Wire) -> None:
    url = re.sub(r":\d+/", f":{wire.port}/", database.url)

    with served(database, url, WEB_CONCURRENCY="1", WEB_THREADS="16", FLASK_DATABASE_STATEMENT_SECONDS="1") as port:
        assert set(visit(port, "/up/database", 16, 3000)) == {200}
        threads = worker_threads(database.project, port)
        for _ in range(2):
            wire.flows.clear()
            assert set(visit(port, "/up/database", 16, 32)) == {503}
            assert set(visit(port, "/tour/guestbook", 16, 16)) == {503}
            assert ask(port, "/up").status == 200
            wire.flows.set()
            wire.cut()
            wire.mend()
            assert set(visit(port, "/up/database", 16, 1000)) == {200}
        assert worker_threads(database.project, port) == threads
        assert len(database.connections()) <= 16


def test_hung_database_stops_no_page_for_longer_than_its_limit(database: Database, wire: Wire) -> None:
    """With more visitors than threads, a client waits up to 10 seconds; without the limits, it waits indefinitely."""
    url = re.sub(r":\d+/", f":{wire.port}/", database.url)

    with served(database, url, FLASK_DATABASE_STATEMENT_SECONDS="1", FLASK_DATABASE_CONNECT_SECONDS="1") as port:
        assert set(visit(port)) == {200}
        wire.flows.clear()
        with ThreadPoolExecutor(17) as visitors:
            pages = [visitors.submit(ask, port, "/tour/guestbook") for _ in range(14)]
            others = [visitors.submit(ask, port, path) for path in ("/up", "/", "/static/style.css")]
        assert {page.result().status for page in pages} == {503}
        assert {other.result().status for other in others} == {200}


def test_statement_is_ended_at_its_limit_on_the_server_too(database: Database) -> None:
    with served(database, database.url, FLASK_DATABASE_STATEMENT_SECONDS="1") as port:
        answer = ask(port, "/sleep/30")

        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert execute(database.kind, RUNNING[database.kind]) == [(0,)]
        assert set(visit(port)) == {200}


def test_pool_or_server_without_a_free_connection_returns_503(database: Database) -> None:
    pool = "FLASK_SQLALCHEMY_ENGINE_OPTIONS__pool_"
    name = urlsplit(database.url).path.removeprefix("/")
    address = urlsplit(database.url)
    limited = address._replace(netloc=f"{name}@{address.hostname}:{address.port}").geturl()

    with served(database, database.url, **{f"{pool}size": "1", f"{pool}timeout": "1"}) as port:
        assert set(visit(port, "/sleep/3", 8, 8)) == {200, 503}
        assert set(visit(port, "/sleep/0", 1, 2)) == {200}
    execute(database.kind, *(statement.format(name=name) for statement in LIMITED_USER[database.kind]))
    try:
        with served(database, limited) as port:
            assert set(visit(port, "/sleep/1", 8, 8)) == {200, 503}
            assert "QueuePool" not in (database.project / f"server-{port}.log").read_text()
        database.drop_connections()
    finally:
        execute(database.kind, DROP_USER[database.kind].format(name=name))


def test_pool_follows_the_threads(database: Database) -> None:
    with served(database, database.url, WEB_CONCURRENCY="1", WEB_THREADS="12") as port:
        assert set(visit(port, "/sleep/1", 12, 12)) == {200}
        assert len(database.connections()) == 12


def test_hung_database_does_not_hang_doctor(database: Database, wire: Wire) -> None:
    url = re.sub(r":\d+/", f":{wire.port}/", database.url)
    wire.flows.clear()
    flask = database.project / ".venv" / "bin" / "flask"

    printed = run(
        flask, "doctor", "--port=0", cwd=database.project, check=False, DATABASE_URL=url, FLASK_SECRET_KEY=SECRET
    ).stdout

    assert "does not answer: " in printed
    assert "Traceback" not in printed


def test_doctor_compares_connections_with_the_server(database: Database) -> None:
    database.flask("db", "upgrade")
    flask = database.project / ".venv" / "bin" / "flask"
    settings: dict[str, Any] = {"DATABASE_URL": database.url}
    settings |= {"FLASK_SECRET_KEY": SECRET, "FLASK_TRUSTED_HOSTS": "example.com", "WEB_THREADS": "16"}

    few = run(flask, "doctor", "--port=0", cwd=database.project, **settings).stdout
    many = run(flask, "doctor", "--port=0", cwd=database.project, WEB_CONCURRENCY="64", **settings).stdout

    assert few.endswith("ready\n")
    assert "up to 1024 connections" in many


@pytest.fixture
def pooler(database: Database, tmp_path: Path) -> Iterator[str]:
    """The URL of the database through PgBouncer in transaction mode."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if database.kind != "postgresql" or not program:
        pytest.skip("PgBouncer is for PostgreSQL, and may not be installed")
    address, port = urlsplit(database.url), free_port()
    user = "nobody" if os.geteuid() == 0 else getpass.getuser()
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    folder = tmp_path / "pooler"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        POOLER.format(
            host=address.hostname, port=address.port, own_port=port, folder=folder, user=user, login=address.username
        )
    )
    process = subprocess.Popen([program, "-q", settings])
    try:
        deadline = time.monotonic() + 10
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert time.monotonic() < deadline, "PgBouncer does not start"
            time.sleep(0.05)
        yield address._replace(netloc=f"{address.username}@127.0.0.1:{port}").geturl()
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("query", ["", "?pgbouncer=true"])
def test_pooler_in_transaction_mode_works(database: Database, pooler: str, query: str) -> None:
    url = f"{pooler}{query}"
    python = database.project / ".venv" / "bin" / "python"

    run(database.project / ".venv" / "bin" / "flask", "db", "upgrade", cwd=database.project, DATABASE_URL=url)
    run(python, "-c", TRANSACTIONS, cwd=database.project, DATABASE_URL=url, FLASK_SECRET_KEY=SECRET, WEB_THREADS="10")
    with served(database, url, FLASK_DATABASE_STATEMENT_SECONDS="1") as port:
        assert set(visit(port)) == {200}
        assert ask(port, "/sleep/30").status == 503
        assert execute(database.kind, RUNNING[database.kind]) == [(0,)]
        assert set(visit(port, "/up/database")) == {200}


def test_password_with_special_characters_reaches_the_server(database: Database, tmp_path: Path) -> None:
    if database.kind != "mysql":
        pytest.skip("the tests' PostgreSQL may trust every local user")
    name, password = urlsplit(database.url).path.removeprefix("/"), "p@ss%41:w/rd?#"
    address = urlsplit(database.url)
    file = tmp_path / "password"
    file.write_text(password)
    quoted = "".join(f"%{ord(letter):02X}" for letter in password)
    flask = database.project / ".venv" / "bin" / "flask"
    execute(
        database.kind,
        f"CREATE USER {name}@'%' IDENTIFIED BY '{password}'".replace(":", "\\:"),
        f"GRANT ALL ON {name}.* TO {name}@'%'",
    )
    try:
        for user, secret in ((f"{name}:{quoted}", ""), (name, str(file))):
            url = address._replace(netloc=f"{user}@{address.hostname}:{address.port}").geturl()
            settings = {"DATABASE_URL": url, "FLASK_DATABASE_PASSWORD_FILE": secret}
            run(flask, "db", "upgrade", cwd=database.project, check=True, **settings)
    finally:
        execute(database.kind, f"DROP USER {name}@'%'")
