"""What ``deploy/`` holds is real: nginx and gunicorn run by it, set up as the project's README says.

Only the folders and the ports are others than on a server, and systemd is played by ``Service``.
"""

import asyncio
import json
import os
import re
import resource
import secrets
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from itertools import chain
from pathlib import Path
from typing import Any

import copier
import pytest
from conftest import COUNTABLE, Render, checked, run
from test_server import free_port

PROGRAMS = os.pathsep.join((os.environ["PATH"], "/usr/sbin"))
NGINX = shutil.which("nginx", path=PROGRAMS)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="systemd and its units are for Linux"),
    pytest.mark.skipif(
        NGINX is None and "REQUIRE_NGINX" not in os.environ,
        reason="no nginx here: `apt-get install nginx` brings one",
    ),
]
CLIENT = "127.0.0.9"  # an address of this machine's own, other than nginx's
MEBIBYTE = 1024 * 1024
PROBE = '''
from flask import Response

RELEASE = 1


@bp.route("/seen", methods=["GET", "POST"])
def seen() -> dict[str, object]:
    """What the app sees of a request."""
    import time
    from flask import request, url_for

    time.sleep(float(request.args.get("seconds", 0)))
    return {
        "client": request.remote_addr,
        "scheme": request.scheme,
        "host": request.host,
        "prefix": request.root_path,
        "link": url_for("home.index", _external=True),
        "headers": dict(request.headers),
        "bytes": len(request.get_data()),
        "release": RELEASE,
    }


@bp.get("/static-probe/static/<int:status>")
def cacheable(status: int) -> Response:
    """A response of any status that is marked as cacheable for a year."""
    return Response("cacheable", status, {"Cache-Control": "public, max-age=31536000, immutable"})
'''
MIGRATION = """
revision = "next_release"
down_revision = {!r}


def upgrade():
    pass


def downgrade():
    pass
"""
HEADERS = {
    "Content-Security-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Permissions-Policy",
    "Referrer-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
}
# Where Debian's servers listen, and what takes from them what the README put there.
SOCKETS = {"postgresql": Path("/run/postgresql/.s.PGSQL.5432"), "mysql": Path("/run/mysqld/mysqld.sock")}
REMOVE = {
    "postgresql": "for drop in dropdb dropuser; do runuser -u postgres -- $drop --if-exists {name}; done",
    "mysql": "mariadb --execute 'DROP DATABASE IF EXISTS {name}; DROP USER IF EXISTS {name}@localhost'",
}
SUDO = 'if [ "$1" = -u ]; then user=$2; shift 2; exec runuser -u "$user" -- "$@"; fi; exec "$@"'
# What ProtectSystem=strict does: nothing can be written but what is named.
STRICT = """
mount --bind "$ROOT" "$ROOT"
for folder in $WRITABLE; do mount --bind "$folder" "$folder"; done
mount -o remount,bind,ro "$ROOT"
mount -o remount,bind,ro /
cd "$PWD"
if touch "$ROOT/written" 2>/dev/null; then exit 9; fi
exec "$@"
"""


class Machine:
    """A server's folders under a folder of their own, and what stands in for the commands of its administrator."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.http, self.https = free_port(), free_port()
        self.typed = root / "typed"
        for folder in ("bin", "run", "var/cache", "var/lib", "var/log/nginx", "etc/systemd/system"):
            (root / folder).mkdir(parents=True)
        shutil.copytree("/etc/nginx", root / "etc/nginx", ignore=shutil.ignore_patterns("sites-enabled"))
        self.edit(root / "etc/nginx/nginx.conf")
        # Where nginx was built to write, only root may.
        parts = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{part}_temp_path {root}/var/cache/{part};\n" for part in parts)
        (root / "etc/nginx/conf.d/00-paths.conf").write_text(paths)
        nginx = f"{NGINX} -c {root}/etc/nginx/nginx.conf -e {root}/var/log/nginx/error.log"
        for name, script in {
            "sudo": SUDO,
            "nginx": f'exec {nginx} "$@"',
            **{name: f'echo {name} "$@" >> {self.typed}' for name in ("useradd", "systemctl", "journalctl", "git")},
        }.items():
            (root / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
            (root / "bin" / name).chmod(0o755)

    def here(self, text: str) -> str:
        """A text with its folders moved to this machine's, but for the socket of a server that was there before."""
        return re.sub(r"(?<![\w.}])/(etc|run(?!/mysqld)|srv|var)/", rf"{self.root}/\1/", text)

    def edit(self, file: Path, *changes: tuple[str, str]) -> None:
        """Change a file as its owner would."""
        text = self.here(file.read_text())
        for old, new in changes:
            assert re.search(old, text), f"{file} holds no {old}"
            text = re.sub(old, new, text)
        file.write_text(text)

    def type(self, script: str) -> str:
        """Run a block of the README."""
        search = f"{self.root}/bin{os.pathsep}{PROGRAMS}"
        return run("bash", "-euo", "pipefail", "-c", self.here(script), cwd=self.root, PATH=search).stdout


class Service:
    """What systemd does by a unit, as far as the app can tell."""

    def __init__(self, machine: Machine, file: Path) -> None:
        self.machine = machine
        self.settings: dict[str, list[str]] = {}
        for key, value in re.findall(r"^(\w+)=(.*)$", file.read_text().split("[Service]")[1], re.MULTILINE):
            self.settings.setdefault(key, []).append(value.replace("%d", f"{machine.root}/run/credentials"))
        self.log = machine.root / "service.log"
        settings = self["EnvironmentFile"]
        optional = settings.startswith("-") and not Path(settings[1:]).exists()
        files = [] if optional else [Path(settings.removeprefix("-")).read_text().splitlines()]
        self.env = dict(pair.split("=", 1) for pair in chain(self.settings["Environment"], *files))
        self.folders = []
        for kind, parent in (("RuntimeDirectory", "run"), ("StateDirectory", "var/lib")):
            folder = machine.root / parent / self[kind]
            folder.mkdir(mode=int(self[f"{kind}Mode"], 8))
            if os.getuid() == 0:
                shutil.chown(folder, group=self["Group"])
            self.folders.append(str(folder))
        name, _, source = self["LoadCredential"].partition(":")
        (machine.root / "run/credentials").mkdir(mode=0o500)
        shutil.copy(source, machine.root / "run/credentials" / name)

    def __getitem__(self, key: str) -> str:
        (value,) = self.settings[key]
        return value

    def command(self, line: str) -> list[str]:
        """A command of the unit, in a file system as the unit makes it where this machine allows that."""
        words = shlex.split(line.removeprefix("-"))
        unshare = ("unshare", "--mount", "--map-root-user")
        if run(*unshare, "true", cwd=self.machine.root, check=False).returncode:
            return words
        return [*unshare, "sh", "-euc", STRICT, "sh", *words]

    @property
    def surroundings(self) -> dict[str, str]:
        """The environment of each command."""
        paths = {"ROOT": str(self.machine.root), "WRITABLE": " ".join(self.folders), "TMPDIR": self.folders[1]}
        # systemd changes the user; PostgreSQL is told its name.
        told = {"NOTIFY_SOCKET": f"{self.machine.root}/notify", "PGUSER": self["User"]}
        return {"PATH": os.environ["PATH"], **told, **paths, **self.env}

    def execute(self, line: str) -> str:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(line),
            cwd=self["WorkingDirectory"],
            env=self.surroundings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0 or line.startswith("-"), f"{line} exits with {done.returncode}:\n{done.stdout}"
        return done.stdout

    @contextmanager
    def started(self) -> Iterator["Service"]:
        """Start it, wait until it says that it is ready, and stop it at the end."""
        self.prepared = [self.execute(line) for line in self.settings["ExecStartPre"]]
        assert self["Type"] == "notify"
        Path(f"{self.machine.root}/notify").unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, self.log.open("wb") as log:
            notices.bind(f"{self.machine.root}/notify")
            notices.settimeout(30)
            self.process = subprocess.Popen(
                self.command(self["ExecStart"]),
                cwd=self["WorkingDirectory"],
                env=self.surroundings | {"FLASK_TOUR": "true"},  # doctor calls a public tour an error
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                assert b"READY=1" in notices.recv(1024)
                yield self
            finally:
                self.process.send_signal(signal.SIGTERM)
                self.process.wait(float(self["TimeoutStopSec"]))

    def reload(self) -> None:
        """Do what ``systemctl reload`` does: run the commands in order, up to the first that fails."""
        for line in self.settings["ExecReload"]:
            self.execute(line.replace("$MAINPID", str(self.process.pid)))


@contextmanager
def set_up(template: Path, name: str, database: str) -> Iterator[Machine]:
    """A machine that was set up to the letter of the README, with a probe in the app."""
    # Not pytest's folder: nginx's own user must be able to enter it, and a socket's path is short.
    root = Path(tempfile.mkdtemp(prefix="deploy-"))
    root.chmod(0o755)
    try:
        machine = Machine(root, name)
        project = root / "srv" / name
        answers = checked({"proxy_fix": True, "database": database})
        copier.run_copy(str(template), project, data=answers, defaults=True, skip_tasks=True, quiet=True)
        home = project / f"src/{name}/home.py"
        home.write_text(home.read_text() + PROBE)
        machine.edit(
            project / "deploy/nginx.conf",
            (r"(?m)^ +listen \[::\].*\n", ""),  # not every machine has IPv6
            (r"listen 80;", f"listen 127.0.0.1:{machine.http};"),
            (r"listen 443 ", f"listen 127.0.0.1:{machine.https} "),
            (r"(proxy_http_version 1.1;)", r"\1 proxy_read_timeout 10s;"),
        )
        machine.edit(project / f"deploy/{name}.service")
        certificate = root / "etc/letsencrypt/live/example.com"
        certificate.mkdir(parents=True)
        run(
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=example.com"),
            *("-addext", "subjectAltName=DNS:example.com", "-out", "fullchain.pem", "-keyout", "privkey.pem"),
            cwd=certificate,
        )
        machine.type(blocks(project)[0])
        yield machine
    finally:
        shutil.rmtree(root)


@contextmanager
def served(machine: Machine) -> Iterator[Service]:
    """The app behind nginx."""
    nginx = [str(machine.root / "bin/nginx"), "-g", "daemon off;"]
    with Service(machine, machine.root / f"etc/systemd/system/{machine.name}.service").started() as service:
        front = subprocess.Popen(nginx, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: ask(machine, "/up")[0].status == 200)
            yield service
        finally:
            front.terminate()
            front.wait(30)


@pytest.fixture(scope="module")
def machine(template: Path) -> Iterator[Machine]:
    """A machine that was set up for SQLite."""
    with set_up(template, "myapp", "sqlite") as machine:
        yield machine


@pytest.fixture(scope="module")
def service(machine: Machine) -> Iterator[Service]:
    """The app on that machine."""
    with served(machine) as service:
        yield service


@pytest.fixture
def site(machine: Machine, service: Service) -> Machine:
    """The machine while it serves."""
    assert service.process.poll() is None, service.log.read_text()
    return machine


def blocks(project: Path) -> list[str]:
    """The commands in the part of the README about nginx: for the first day, and for a new release."""
    part = (project / "README.md").read_text().partition("### Behind nginx\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```sh$(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    assert len(found) == 2
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, "it never was so"
        time.sleep(0.05)


def connect(machine: Machine) -> HTTPSConnection:
    """A connection to example.com, which this machine is for once."""
    trust = ssl.create_default_context(cafile=machine.root / "etc/letsencrypt/live/example.com/fullchain.pem")
    connection = HTTPSConnection("example.com", context=trust, timeout=30)
    address = ("127.0.0.1", machine.https)
    here = lambda *_args: socket.create_connection(address, 30, (CLIENT, 0))  # noqa: E731
    connection._create_connection = here  # type: ignore[attr-defined]
    return connection


def ask(
    machine: Machine, path: str, method: str = "GET", body: Any = None, **headers: str
) -> tuple[HTTPResponse, bytes]:
    """Send a request over a connection of its own."""
    connection = connect(machine)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def send(machine: Machine, request: bytes, *, tls: bool = True) -> tuple[HTTPResponse, bytes]:
    """Send bytes to the HTTPS port as they are."""
    trust = ssl.create_default_context(cafile=machine.root / "etc/letsencrypt/live/example.com/fullchain.pem")
    with socket.create_connection(("127.0.0.1", machine.https), 30) as plain:
        connection = trust.wrap_socket(plain, server_hostname="example.com") if tls else plain
        with connection:
            connection.sendall(request)
            response = HTTPResponse(connection)
            response.begin()
            return response, response.read()


def seen(machine: Machine, **headers: str) -> dict[str, Any]:
    """What the app sees of a request."""
    response, body = ask(machine, "/seen", **headers)
    assert response.status == 200, body
    answer: dict[str, Any] = json.loads(body)
    return answer


def logged(service: Service, path: str) -> int:
    """How many requests for a path the app has answered so far."""
    return service.log.read_text().count(f'"path": "{path}"')


def test_readme_sets_the_machine_up(machine: Machine, service: Service) -> None:
    root = machine.root

    assert machine.typed.read_text().splitlines() == [
        "useradd --system myapp",
        "systemctl enable --now myapp",
        "systemctl reload nginx",
        "journalctl --unit myapp",
    ]
    secret = root / "etc/myapp/secret_key"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(secret.read_text())) == 32
    assert not (root / "srv/myapp/.venv/bin/pytest").exists(), "a server tests nothing"
    assert service.prepared[-1] == "ready\n"
    assert (root / "var/lib/myapp/myapp.db").stat().st_size > 0
    assert not (root / "srv/myapp/instance").exists()


@pytest.mark.parametrize("database", SOCKETS)
def test_readme_sets_a_database_of_a_server_up(template: Path, database: str) -> None:
    """On a server of this machine, as Debian installs it: its administrator comes in over its socket."""
    if os.getuid() != 0:
        pytest.skip("only root is, or can become, the administrator of a database server")
    if not SOCKETS[database].is_socket():
        assert "REQUIRE_SERVERS" not in os.environ
        pytest.skip(f"no {database} server listens at {SOCKETS[database]}")
    name = f"starter{secrets.token_hex(4)}"
    try:
        with set_up(template, name, database) as machine, served(machine) as service:
            assert (machine.root / f"etc/{name}/environment").stat().st_mode & 0o777 == 0o600
            assert service.prepared[-1] == "ready\n"
            response, body = ask(machine, "/up/database")
            assert (response.status, json.loads(body)) == (200, {"status": "up"})
    finally:
        run("bash", "-euc", REMOVE[database].format(name=name), cwd=Path("/"))


def test_site_says_how_often_it_names_its_host(machine: Machine) -> None:
    text = (machine.root / "srv/myapp/deploy/nginx.conf").read_text()

    assert "example.com, five times" in text
    assert text.count("example.com") == 1 + 5


def test_response_is_not_lost_if_the_view_does_not_read_the_body(site: Machine) -> None:
    refused = {"/nothing": 404, "/": 405}
    asked = [path for path in refused for _ in range(60)]

    def post(path: str) -> int:
        return ask(site, path, "POST", b"x" * 10_000_000)[0].status

    with ThreadPoolExecutor(4) as clients:
        assert list(clients.map(post, asked)) == [refused[path] for path in asked]


def test_app_sees_the_client_as_it_is(site: Machine) -> None:
    answer = seen(site)

    assert answer["client"] == CLIENT
    assert answer["scheme"] == "https"
    assert answer["host"] == "example.com"
    assert answer["prefix"] == ""
    assert answer["link"] == "https://example.com/"


def test_forged_headers_are_ignored(site: Machine) -> None:
    forged = {
        "Forwarded": "for=198.51.100.66;host=evil.example;proto=gopher",
        "X_Forwarded_For": "198.51.100.66",
        "X_Forwarded_Host": "evil.example",
        "X_Forwarded_Port": "6666",
        "X_Forwarded_Prefix": "/evil",
        "X_Forwarded_Proto": "gopher",
        "X_Forwarded_Protocol": "gopher",
        "X_Forwarded_Ssl": "off",
    }

    answer, unforged = seen(site, **forged), seen(site)

    for each in (answer, unforged):  # a new one for each request
        del each["headers"]["X-Request-Id"]
    assert answer == unforged
    for word in ("198.51.100.66", "evil", "6666", "gopher"):
        assert word not in json.dumps(answer)


def test_form_is_accepted_on_a_port_other_than_443(site: Machine) -> None:
    host = f"example.com:{site.https}"

    answer = seen(site, Host=host)

    assert answer["host"] == host
    assert answer["link"] == f"https://{host}/"
    assert ask(site, "/seen", "POST", Host=host, Origin=f"https://{host}")[0].status == 200
    assert ask(site, "/seen", "POST", Host=host, Origin="https://example.com")[0].status == 403
    assert ask(site, "/seen", "POST", Host=host, Origin=f"https://evil.example:{site.https}")[0].status == 403
    assert ask(site, "/seen", "POST", Origin="https://example.com")[0].status == 200


def test_http_2_authority_reaches_the_app_with_its_port(site: Machine) -> None:
    url = f"https://example.com:{site.https}/seen"
    options = ("--silent", "--insecure", "--http2", "--write-out", "\n%{http_version}")
    resolved = ("--resolve", f"example.com:{site.https}:127.0.0.1")

    answer, version = run("curl", *options, *resolved, url, cwd=site.root).stdout.rsplit("\n", 1)

    assert version == "2"
    assert json.loads(answer)["host"] == f"example.com:{site.https}"


def test_request_without_host_gets_the_server_name(site: Machine) -> None:
    """HTTP/1.0 has no Host header, and load balancers still send it."""
    response, body = send(site, b"GET /seen HTTP/1.0\r\n\r\n")

    assert response.status == 200
    assert json.loads(body)["host"] == "example.com"
    assert json.loads(body)["link"] == "https://example.com/"


@pytest.mark.parametrize(
    "request_head",
    [
        "GET /seen HTTP/1.1\r\nHost: evil.example",
        "GET /seen HTTP/1.1\r\nHost: evil.example:443",
        "GET /seen HTTP/1.1\r\nHost: example.com.evil.example",
        "GET /seen HTTP/1.1\r\nHost: example.com@evil.example",
        "GET /seen HTTP/1.1\r\nHost: example.com\r\nHost: evil.example",
        "GET /seen HTTP/1.1\r\nHost: evil.example, example.com",
        "GET /seen HTTP/1.1\r\nHost: example.com, evil.example",
        "GET /seen HTTP/1.1\r\nHost:",
        "GET /seen HTTP/1.1",
        "GET https://evil.example/seen HTTP/1.1\r\nHost: evil.example",
        "GET https://evil.example/seen HTTP/1.1\r\nHost: example.com",
        "GET https://evil.example/seen HTTP/1.0",
    ],
)
def test_other_host_is_refused_however_it_is_written(site: Machine, request_head: str) -> None:
    response, body = send(site, f"{request_head}\r\nConnection: close\r\n\r\n".encode())

    assert response.status == 400
    assert b"evil" not in body


@pytest.mark.parametrize(
    "request_head",
    [
        "GET /seen HTTP/1.1\r\nHost: Example.COM",
        "GET /seen HTTP/1.1\r\nHost: example.com.",
        "GET /seen HTTP/1.1\r\nHost: example.com:443",
        "GET /seen HTTP/1.1\r\nHost: example.com:evil",
        "GET https://example.com/seen HTTP/1.1\r\nHost: evil.example",
        "GET https://example.com/seen HTTP/1.0",
    ],
)
def test_app_sees_its_own_host_however_it_is_written(site: Machine, request_head: str) -> None:
    response, body = send(site, f"{request_head}\r\nConnection: close\r\n\r\n".encode())

    assert response.status == 200
    assert json.loads(body)["host"] == "example.com"
    assert b"evil" not in body


def test_headers_that_reach_the_app_are_those_it_counts(site: Machine, service: Service) -> None:
    headers = [f"--header={name}: {value}" for name, value in seen(site)["headers"].items()]
    flask = site.root / "srv/myapp/.venv/bin/flask"

    done = run(flask, "doctor", "--port=0", *headers, cwd=site.root / "srv/myapp", check=False, **service.env)

    assert done.stdout == "ready\n"


def test_forged_host_is_refused_by_the_app(site: Machine) -> None:
    response, body = ask(site, "/seen", Host="evil.example")

    assert response.status == 400
    assert b"<h1>" in body
    assert b"evil" not in body
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]


def test_http_leads_to_https(site: Machine) -> None:
    for host in ("example.com", "evil.example"):
        connection = HTTPConnection("127.0.0.1", site.http, timeout=30)
        connection.request("GET", "/seen?a=1&b=%2F", headers={"Host": host})
        response = connection.getresponse()
        response.read()
        connection.close()

        assert response.status == 301
        assert response.headers["Location"] == "https://example.com/seen?a=1&b=%2F"
        assert response.headers["Server"] == "nginx"


def test_tls_offers_http_2_and_nothing_old(site: Machine) -> None:
    trust = ssl.create_default_context(cafile=site.root / "etc/letsencrypt/live/example.com/fullchain.pem")
    trust.set_alpn_protocols(["h2"])
    address = ("127.0.0.1", site.https)

    with socket.create_connection(address) as plain, trust.wrap_socket(plain, server_hostname="example.com") as tls:
        assert tls.selected_alpn_protocol() == "h2"
    offered = run(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{site.https}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
        cwd=site.root,
        check=False,
    )
    assert offered.returncode != 0
    assert "Cipher is (NONE)" in offered.stdout


def test_pages_carry_the_headers_of_the_app(site: Machine) -> None:
    response, _body = ask(site, "/", Accept_Encoding="gzip")

    assert response.status == 200
    assert response.headers["Server"] == "nginx"
    assert response.headers["Content-Encoding"] is None, "a page may hold a secret"
    for name in HEADERS:
        assert len(response.headers.get_all(name, [])) == 1
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000", "subdomains are opt-in"


END = b"Host: example.com\r\nConnection: close\r\n\r\n"


def assert_carries_headers(site: Machine, response: HTTPResponse) -> None:
    """Compare the security headers with those of the app, of which only the policy may be stricter; find the id."""
    (request_id,) = set(response.headers.get_all("X-Request-ID", []))  # nginx adds it twice to a 416 of a stored file
    wait_for(lambda: f"{request_id}\n" in access_log(site))
    app, _page = ask(site, "/")
    for name in HEADERS:
        (value,) = response.headers.get_all(name, [""])
        if value != app.headers[name]:
            assert (name, value) == ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        pytest.param(400, b"nonsense\r\n\r\n", id="no request line"),
        pytest.param(400, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", id="no host"),
        pytest.param(400, b"GET / HTTP/1.1\r\nContent-Length: x\r\n" + END, id="malformed length"),
        pytest.param(400, b"GET /%00 HTTP/1.1\r\n" + END, id="NUL in the path"),
        pytest.param(400, b"GET / HTTP/1.1\r\nA: " + b"x" * 9000 + b"\r\n" + END, id="long header"),
        pytest.param(405, b"TRACE / HTTP/1.1\r\n" + END, id="TRACE"),
        pytest.param(413, b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n" + END, id="long body"),
        pytest.param(414, b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n" + END, id="long URL"),
        pytest.param(501, b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n" + END, id="unknown coding"),
        pytest.param(505, b"GET / HTTP/2.9\r\n" + END, id="unknown version"),
        pytest.param(414, b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n" + END, id="long URL for gunicorn"),
        pytest.param(431, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + END, id="many headers for gunicorn"),
    ],
)
def test_error_of_a_server_in_front_of_the_app_carries_its_headers(
    site: Machine, status: int, request_bytes: bytes
) -> None:
    response, _body = send(site, request_bytes)

    assert response.status == status
    assert_carries_headers(site, response)


def access_log(site: Machine) -> str:
    """What nginx has logged so far."""
    return (site.root / "var/log/nginx/access.log").read_text()


def test_request_id_of_nginx_is_in_both_logs_and_replaces_the_client_s(site: Machine, service: Service) -> None:
    forged = "0123456789abcdef0123456789abcdef"

    response, body = ask(site, "/seen?identified", X_Request_ID=forged)

    request_id = response.headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert request_id != forged
    assert json.loads(body)["headers"]["X-Request-Id"] == request_id
    wait_for(lambda: f'"request_id": "{request_id}"' in service.log.read_text())
    wait_for(lambda: f"{request_id}\n" in access_log(site))
    assert forged not in service.log.read_text()


def test_plain_http_on_the_https_port_carries_the_headers(site: Machine) -> None:
    response, _body = send(site, b"GET / HTTP/1.1\r\n" + END, tls=False)

    assert response.status == 400
    assert_carries_headers(site, response)


def test_app_that_is_away_or_hangs_leaves_an_error_with_the_headers(site: Machine, service: Service) -> None:
    gunicorn = site.root / "run/myapp/gunicorn.sock"
    gunicorn.rename(gunicorn.with_suffix(".away"))
    try:
        away, _body = ask(site, "/seen")
    finally:
        gunicorn.with_suffix(".away").rename(gunicorn)
    os.killpg(service.process.pid, signal.SIGSTOP)
    try:
        hanging, _body = ask(site, "/seen")
    finally:
        os.killpg(service.process.pid, signal.SIGCONT)

    assert (away.status, hanging.status) == (502, 504)
    assert_carries_headers(site, away)
    assert_carries_headers(site, hanging)


def test_refused_range_and_condition_of_a_stored_file_carry_the_headers(site: Machine) -> None:
    """nginx drops the stored headers there."""
    _response, body = ask(site, "/")
    (url,) = set(re.findall(r'"(/static/style\.css\?v=[0-9a-f]+)"', body.decode()))
    assert ask(site, url)[0].status == 200

    for status, condition in {416: {"Range": "bytes=9999999-"}, 412: {"If_Match": '"other"'}}.items():
        response, _body = ask(site, url, **condition)
        assert response.status == status
        assert_carries_headers(site, response)


@pytest.mark.parametrize("status", [206, 301, 302, 308, 400, 401, 403, 404, 410, 416, 429, 500, 503])
def test_only_a_success_is_stored(site: Machine, service: Service, status: int) -> None:
    """Even if the app marks an error as cacheable."""
    for count, code in ((1, 200), (2, status)):
        path = f"/static-probe/static/{code}"
        before = logged(service, path)
        for _ in range(2):
            response, _body = ask(site, f"{path}?v={status}")
            assert response.status == code
        wait_for(lambda path=path, total=before + count: logged(service, path) >= total)  # type: ignore[misc]
        assert logged(service, path) == before + count


@pytest.mark.parametrize(("page", "file"), [("/", "/static/style.css"), ("/tour/", "/tour/static/tour.css")])
def test_hashed_file_is_served_by_nginx_alone(site: Machine, service: Service, page: str, file: str) -> None:
    _response, body = ask(site, page)
    (url,) = set(re.findall(rf'"({file}\?v=[0-9a-f]+)"', body.decode()))
    first, content = ask(site, url)
    wait_for(lambda: logged(service, file) == 1)

    os.killpg(service.process.pid, signal.SIGSTOP)
    try:
        kept, same = ask(site, url)
        revalidated, nothing = ask(site, url, If_None_Match=first.headers["ETag"])
        part, some = ask(site, url, Range="bytes=0-9")
        compressed, small = ask(site, url, Accept_Encoding="gzip")
    finally:
        os.killpg(service.process.pid, signal.SIGCONT)

    assert logged(service, file) == 1
    assert (kept.status, same) == (first.status, content) == (200, content)
    assert (revalidated.status, nothing) == (304, b"")
    assert (part.status, some) == (206, content[:10])
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert len(small) < len(content)
    ids = [response.headers.get_all("X-Request-ID", []) for response in (first, kept, revalidated, part, compressed)]
    assert all(len(values) == 1 for values in ids)
    assert len({value for (value,) in ids}) == len(ids), "a stored file would repeat that of another request"
    for response in (first, kept, part):
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert response.headers["Content-Type"] == "text/css; charset=utf-8"
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert response.headers["Strict-Transport-Security"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Set-Cookie"] is None


@pytest.mark.parametrize("query", ["", "?v="])
def test_other_file_is_revalidated(site: Machine, query: str) -> None:
    url = f"/static/favicon.svg{query}"
    response, content = ask(site, url)
    part, some = ask(site, url, Range="bytes=0-9")

    assert response.status == 200
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert ask(site, url, If_None_Match=response.headers["ETag"])[0].status == 304
    assert (part.status, some) == (206, content[:10])


def test_wrong_hash_is_not_kept(site: Machine, service: Service) -> None:
    for count in (1, 2):
        response, _content = ask(site, "/static/favicon.svg?v=0123456789abcdef")
        assert response.headers["Cache-Control"] == "no-cache"
        wait_for(lambda count=count: logged(service, "/static/favicon.svg") >= count)  # type: ignore[misc]


def test_changed_file_is_served_at_once(site: Machine) -> None:
    file = site.root / "srv/myapp/src/myapp/static/robots.txt"
    file.write_text("old\n")
    try:
        assert ask(site, "/static/robots.txt")[1] == b"old\n"
        file.write_text("newer\n")
        assert ask(site, "/static/robots.txt")[1] == b"newer\n"
    finally:
        file.unlink()


@pytest.mark.parametrize(
    "path",
    ["/static/../settings.py", "/static/..%2fsettings.py", "/static/%2e%2e/settings.py", "/.env", "/.git/config"],
)
def test_nothing_beside_the_static_files_is_served(site: Machine, path: str) -> None:
    assert ask(site, path)[0].status in {400, 404}


def test_uploads_are_bounded(site: Machine) -> None:
    def pieces(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield bytes(MEBIBYTE)

    for count in (1, 16):
        for body in (bytes(count * MEBIBYTE), pieces(count)):
            response, answer = ask(site, "/seen", "POST", body)
            assert response.status == 200
            assert json.loads(answer)["bytes"] == count * MEBIBYTE
    assert ask(site, "/seen", "POST", Content_Length=str(16 * MEBIBYTE + 1))[0].status == 413

    connection = connect(site)
    connection.putrequest("POST", "/seen")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    for piece in pieces(17):
        connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    assert connection.getresponse().status == 413
    connection.close()


def test_slow_clients_hold_nobody_up(site: Machine) -> None:
    """More of them than gunicorn has threads send half a body, and wait."""
    with ExitStack() as stack:
        for _ in range(24):
            connection = connect(site)
            stack.callback(connection.close)
            connection.putrequest("POST", "/seen")
            connection.putheader("Content-Length", "1000")
            connection.endheaders(b"x" * 500)

        for _ in range(8):
            assert ask(site, "/seen")[0].status == 200


def test_up_is_polled_by_any_name_and_leaves_no_line(site: Machine, service: Service) -> None:
    for host in ("example.com", "10.0.0.7", "balancer.internal:8443"):
        response, body = ask(site, "/up", Host=host)
        assert (response.status, json.loads(body)) == (200, {"status": "up"})
        assert response.headers["Cache-Control"] == "no-store"
    assert json.loads(ask(site, "/up/database")[1]) == {"status": "up"}

    assert logged(service, "/up") == 0
    assert '"GET /up ' not in (site.root / "var/log/nginx/access.log").read_text()


def test_log_names_the_client(site: Machine, service: Service) -> None:
    ask(site, "/nothing-of-the-kind?secret=1")

    wait_for(lambda: logged(service, "/nothing-of-the-kind") == 1)
    (line,) = [line for line in service.log.read_text().splitlines() if "nothing-of-the-kind" in line]
    assert json.loads(line)["client"] == CLIENT
    assert "secret=1" not in line


def test_new_release_drops_no_request(site: Machine, service: Service) -> None:
    """What the README says, three times under load; requests that began before get their answer."""
    home = site.root / "srv/myapp/src/myapp/home.py"
    answers: list[str] = []
    stop = threading.Event()

    def visit(method: str) -> None:
        while not stop.is_set():
            try:
                response, body = ask(site, "/seen", method, b"x" * 5000 if method == "POST" else None)
                answers.append(f"{response.status}" if response.status == 200 else f"{response.status} {body[:200]!r}")
            except Exception as error:
                answers.append(repr(error))

    with ThreadPoolExecutor(8) as visitors:
        try:
            for number in range(4):
                visitors.submit(visit, "POST" if number % 2 else "GET")
            for release in (2, 3, 4):
                slow = visitors.submit(ask, site, "/seen?seconds=2")
                time.sleep(0.5)  # so that it is under way
                home.write_text(re.sub(r"RELEASE = \d", f"RELEASE = {release}", home.read_text()))
                site.typed.write_text("")
                site.type(blocks(site.root / "srv/myapp")[1].replace("git pull", "cd /srv/myapp && git pull"))
                assert site.typed.read_text().splitlines() == ["git pull", "systemctl reload myapp"]
                service.reload()
                wait_for(lambda release=release: seen(site)["release"] == release)  # type: ignore[misc]
                assert slow.result()[0].status == 200
                time.sleep(1)
        finally:
            stop.set()

    assert set(answers) == {"200"}
    assert len(answers) > 100


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        pytest.param("src/myapp/home.py", "import nothing_of_the_kind", id="import"),
        pytest.param("src/myapp/home.py", "raise SystemExit('no')", id="exit"),
        pytest.param("src/myapp/wsgi.py", "app.nothing_of_the_kind", id="module that only gunicorn loads"),
        pytest.param("gunicorn.conf.py", "this is not Python", id="configuration of gunicorn"),
    ],
)
def test_release_that_cannot_be_loaded_is_refused_before_it_migrates(
    site: Machine, service: Service, file: str, fault: str
) -> None:
    project = site.root / "srv/myapp"
    broken, home = project / file, project / "src/myapp/home.py"

    def flask_db(*words: str) -> str:
        return run(project / ".venv/bin/flask", "db", *words, cwd=project, check=True, **service.env).stdout

    def revision() -> str:
        (current,) = re.findall(r"^(\w+)(?: \(head\))?$", flask_db("current"), re.MULTILINE)
        return str(current)

    before, release = revision(), seen(site)["release"] + 1
    migration = project / "migrations/versions/next_release.py"
    migration.write_text(MIGRATION.format(before))
    home.write_text(re.sub(r"RELEASE = \d+", f"RELEASE = {release}", home.read_text()))
    sound = broken.read_text()
    try:
        broken.write_text(f"{sound}\n{fault}\n")
        with pytest.raises(AssertionError, match="--check-config exits with 1"):
            service.reload()
        assert seen(site)["release"] == release - 1
        broken.write_text(sound)
        assert revision() == before

        service.reload()

        assert revision() != before
        wait_for(lambda: seen(site)["release"] == release)
    finally:
        broken.write_text(sound)
        flask_db("downgrade", before)
        migration.unlink()


def accepts_connections(port: int) -> bool:
    """Connect to a port, and close the connection."""
    with socket.create_connection(("127.0.0.1", port)):
        return True


async def count_answers(port: int, upstream: int, clients: int) -> int:
    """Return how many clients at once are answered by an upstream that answers when the last has come, or is lost."""
    came, everybody = 0, asyncio.Event()

    def count() -> None:
        nonlocal came
        came += 1
        if came == clients:
            everybody.set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        count()
        await everybody.wait()
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def ask() -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            status = await reader.readline()
            writer.close()
        except OSError:
            status = b""
        if b" 200 " not in status:
            count()
        return b" 200 " in status

    async with await asyncio.start_server(answer, "127.0.0.1", upstream, backlog=clients):
        return sum(await asyncio.gather(*(ask() for _ in range(clients))))


@pytest.mark.parametrize("is_as_described", [False, True])
def test_clients_that_nginx_serves_at_once(machine: Machine, tmp_path: Path, is_as_described: bool) -> None:
    """The first lines of the site's file describe what Debian's limit allows, and what 1,000 clients require."""
    text = (machine.root / "srv/myapp/deploy/nginx.conf").read_text().partition("upstream")[0]
    debian = re.search(r"each process (\d+) connections", text)
    assert debian
    files, connections = re.findall(r"`(worker_\w+ \d+;)`", text)
    assert f"worker_connections {debian[1]};" in Path("/etc/nginx/nginx.conf").read_text()
    top, events = (files, connections) if is_as_described else ("", f"worker_connections {debian[1]};")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    port, upstream = free_port(), free_port()
    paths = (machine.root / "etc/nginx/conf.d/00-paths.conf").read_text()
    (tmp_path / "nginx.conf").write_text(
        f"{top} daemon off; pid {tmp_path}/pid; events {{ {events} }} http {{ access_log off; {paths}"
        f" server {{ listen 127.0.0.1:{port} backlog=1000;"
        f" location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }} }}"
    )
    assert NGINX
    server = subprocess.Popen([NGINX, "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error.log"])
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
        wait_for(lambda: accepts_connections(port))

        answered = asyncio.run(count_answers(port, upstream, 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        server.terminate()
        server.wait(30)

    assert (answered == 1000) is is_as_described
    assert is_as_described or answered < int(debian[1])


def test_nginx_accepts_the_longest_package_name(machine: Machine, render: Render) -> None:
    """nginx limits the length of a variable's name."""
    text = (render(package_name="x" * 40, proxy_fix=True) / "deploy/nginx.conf").read_text()
    text = re.sub(r"(?m)^ +listen \[::\].*\n", "", text)
    site, config = machine.root / "long.conf", machine.root / "long-nginx.conf"
    site.write_text(machine.here(text))
    config.write_text(f"events {{}} pid {machine.root}/long.pid; http {{ include {site}; }}")

    run(machine.root / "bin/nginx", "-t", "-c", config, cwd=machine.root)


@pytest.mark.parametrize("database", COUNTABLE["database"])
def test_unit_is_sound(render: Render, tmp_path: Path, database: str) -> None:
    if not shutil.which("systemd-analyze"):
        assert "REQUIRE_NGINX" not in os.environ
        pytest.skip("no systemd-analyze here: `apt-get install systemd` brings one")
    unit = render(proxy_fix=True, database=database) / "deploy/myapp.service"
    # The programs are elsewhere, or not yet installed.
    unit.write_text(re.sub(r"/srv/myapp/\.venv/bin/\w+", "/bin/true", unit.read_text()))

    assert run("systemd-analyze", "verify", unit, cwd=tmp_path).stdout == ""
    # Out of 10, where 10 is a service with every right; the level is in tenths.
    run("systemd-analyze", "security", "--offline=true", "--threshold=20", unit, cwd=tmp_path)


def test_service_managers_wait_for_the_graceful_timeout(render: Render) -> None:
    project = render(proxy_fix=True, docker=True)
    found = {
        file: re.search(setting, (project / file).read_text(), re.MULTILINE)
        for file, setting in {
            ".env.example": r"^# WEB_GRACEFUL_TIMEOUT=(\d+)$",
            "gunicorn.conf.py": r'^graceful_timeout = count\("WEB_GRACEFUL_TIMEOUT", (\d+)\)$',
            "deploy/myapp.service": r"^TimeoutStopSec=(\d+)$",
            "compose.yaml": r"^ +stop_grace_period: (\d+)s$",
        }.items()
    }
    example, default, systemd, compose = (int(match[1]) for match in found.values() if match)
    assert example == default
    assert systemd == default + 10
    assert compose == default + 5
