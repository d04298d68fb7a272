"""The generated app over a real socket: what its README promises to whoever runs and deploys it."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, run
from questionnaire import Questionnaire

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn and signals are not for Windows")
SECRET = "3f1c8a5e9b7d20463f1c8a5e9b7d2046"
VISITS = """
import time
from collections.abc import Iterator
from pathlib import Path

from flask import current_app, request, session


@bp.get("/visits")
def visits() -> str:
    session["visits"] = session.get("visits", 0) + 1
    return str(session["visits"])


@bp.get("/say")
def say() -> str:
    current_app.logger.warning(request.args["word"])
    return "said"


@bp.post("/unread")
def unread() -> Iterator[str]:
    yield from ("started, ", "finished")


@bp.post("/partly")
def partly() -> str:
    return str(len(request.stream.read(1000)))


@bp.get("/client")
def client() -> str:
    return str(request.remote_addr)


@bp.get("/slow")
def slow() -> str:
    Path(request.args["started"]).touch()
    time.sleep(5)
    return "slow"
"""


@pytest.fixture(scope="module")
def project(questionnaire: Questionnaire, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A default project with its environment, and one view that counts visits in the session."""
    folder = tmp_path_factory.mktemp("server") / "myapp"
    questionnaire.write(folder)
    run("uv", "sync", cwd=folder)
    home = folder / "src" / "myapp" / "home.py"
    home.write_text(home.read_text() + VISITS)
    return folder


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(port: int, path: str = "/", method: str = "GET", **headers: str) -> tuple[HTTPResponse, str]:
    """Send one request over a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response, body


@contextmanager
def serving(project: Path, *command: str, **env: str) -> Iterator[int]:
    """Run a server until it answers, and stop it gently at the end."""
    port = free_port()
    words = [str(project / ".venv" / "bin" / command[0]), *(word.format(port=port) for word in command[1:])]
    log = project / f"server-{port}.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            words,
            cwd=project,
            env=os.environ | {"FLASK_TOUR": "true"} | env,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                get(port)
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(10)


LOGGED = {"FLASK_SECRET_KEY": SECRET, "FLASK_LOG_LEVEL": "WARNING"}
GUNICORN = ("gunicorn", "--workers=2", "--bind=127.0.0.1:{port}", "myapp.wsgi:app")


@pytest.fixture(scope="module")
def production(project: Path) -> Iterator[int]:
    """The port of gunicorn with two workers and a secret."""
    with serving(project, *GUNICORN, FLASK_SECRET_KEY=SECRET) as port:
        yield port


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what a process has open")
def test_environment_says_how_many_serve_and_their_heartbeat_waits_for_no_disk(project: Path) -> None:
    settings: dict[str, Any] = {"FLASK_SECRET_KEY": SECRET, "WEB_CONCURRENCY": "1", "WEB_THREADS": "5"}
    printed = run(project / ".venv" / "bin" / "gunicorn", "--print-config", cwd=project, **settings).stdout
    told = dict(re.findall(r"^(\w+) += (.*)$", printed, re.MULTILINE))
    assert (told["workers"], told["threads"]) == ("1", "5")
    assert int(told["max_requests"]) > int(told["max_requests_jitter"]) > 0

    with serving(project, "gunicorn", "--bind=127.0.0.1:{port}", **settings) as port:
        (worker,) = re.findall(r"Booting worker with pid: (\d+)", (project / f"server-{port}.log").read_text())
        opened = [str(file.resolve()) for file in Path("/proc", worker, "fd").iterdir()]
        assert any(name.startswith("/dev/shm/") for name in opened)


@pytest.mark.parametrize(("seconds", "is_answered"), [("30", True), ("1", False)])
def test_graceful_timeout_limits_requests_in_flight_at_a_stop(
    project: Path, tmp_path: Path, seconds: str, is_answered: bool
) -> None:
    def ask(port: int) -> str:
        try:
            return get(port, f"/slow?started={tmp_path}/started")[1]
        except (OSError, HTTPException) as error:
            return repr(error)

    settings = {"FLASK_SECRET_KEY": SECRET, "WEB_GRACEFUL_TIMEOUT": seconds}
    with ThreadPoolExecutor(1) as client:
        with serving(project, *GUNICORN, **settings) as port:
            slow = client.submit(ask, port)
            while not (tmp_path / "started").exists():
                assert not slow.done(), slow.result()
                time.sleep(0.05)
        assert (slow.result() == "slow") is is_answered


def test_each_line_of_gunicorn_names_the_host(project: Path) -> None:
    with serving(project, *GUNICORN, FLASK_SECRET_KEY=SECRET) as port:
        get(port, "/nothing")

    lines = [json.loads(line) for line in (project / f"server-{port}.log").read_text().splitlines()]
    by_logger = {line["logger"]: line.get("host") for line in lines if line["logger"].startswith("gunicorn")}
    assert by_logger == dict.fromkeys(("gunicorn.error", "gunicorn.access"), socket.gethostname())


def test_home_page_is_served_in_debug_mode_without_any_setting(project: Path) -> None:
    with serving(project, "flask", "run", "--debug", "--port={port}") as port:
        response, body = get(port)

    assert response.status == 200
    assert "Myapp works." in body
    assert (project / "instance" / "secret_key").stat().st_mode & 0o777 == 0o600


def test_app_can_be_named_on_the_command_line_from_anywhere(project: Path, tmp_path: Path) -> None:
    flask = project / ".venv" / "bin" / "flask"

    routes = run(flask, "--app", "myapp", "--debug", "routes", cwd=tmp_path).stdout

    assert "home.index" in routes
    assert list(tmp_path.iterdir()) == []


def test_wheel_serves_and_keeps_its_data_in_its_environment(project: Path, tmp_path: Path) -> None:
    run("uv", "build", "--wheel", f"--out-dir={tmp_path}", cwd=project)
    run("uv", "venv", tmp_path / ".venv", cwd=tmp_path)
    run("uv", "pip", "install", *tmp_path.glob("*.whl"), cwd=tmp_path)

    with serving(tmp_path, *GUNICORN, FLASK_DEBUG="1") as port:
        stylesheet = re.search(r'href="(/static/style\.css[^"]*)"', get(port)[1])
        assert stylesheet
        assert get(port, stylesheet[1])[0].status == 200
        assert get(port, "/tour/")[0].status == 200

    assert list(tmp_path.rglob("secret_key")) == [tmp_path / ".venv" / "var" / "myapp-instance" / "secret_key"]


def test_gunicorn_serves_page_static_file_and_errors(production: int) -> None:
    response, body = get(production)
    assert response.status == 200
    stylesheet = re.search(r'href="(/static/style\.css[^"]*)"', body)
    assert stylesheet
    assert get(production, stylesheet[1])[0].headers["Content-Type"].startswith("text/css")

    assert get(production, "/nothing")[0].status == 404
    response, body = get(production, "/nothing", Accept="application/json")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["status"] == 404
    assert get(production, "/", "DELETE")[0].headers["Allow"]


def test_health_checks_answer_with_and_without_the_prefix(project: Path) -> None:
    prefix = {"FLASK_SECRET_KEY": SECRET, "SCRIPT_NAME": "/shop"}
    with serving(project, "gunicorn", "--bind=127.0.0.1:{port}", **prefix) as port:
        for path in ("/up", "/shop/up", "/up/database", "/shop/up/database"):
            response, body = get(port, path)
            assert (response.status, json.loads(body)) == (200, {"status": "up"})
        assert get(port, "/upper")[0].status >= 400
        assert get(port, "/shop/upper")[0].status == 404

        response, page = get(port, "/shop/")
        assert response.status == 200
        links = re.findall(r'(?:href|src)="(/[^"]*)"', page)
        assert all(link.startswith("/shop/") for link in links)
        files = [link for link in links if "/static/" in link]
        assert files
        assert all(get(port, file)[0].status == 200 for file in files)
        cookie = get(port, "/shop/visits")[0].headers["Set-Cookie"]
        assert cookie.startswith("__Host-session=")
        assert "Path=/;" in f"{cookie};", "browsers drop a __Host- cookie with another path"
        visits = get(port, "/shop/visits", Cookie=cookie.partition(";")[0])[1]
        assert visits == "2"
        run(*health_check(), cwd=project, PORT=str(port))
    assert '"path": "/up"' not in (project / f"server-{port}.log").read_text()


def health_check() -> list[str]:
    """The command of the image's HEALTHCHECK, with this Python."""
    dockerfile = ROOT / "template/[% if docker %]Dockerfile[% endif %].jinja"
    (command,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (.*)$", dockerfile.read_text(), re.MULTILINE)
    python, *words = json.loads(command)
    assert python == "python"
    return [sys.executable, *words]


# Loopback alone tells these networks apart: each has its addresses or lacks them.
NETWORKS = {
    "both": ("true", {"127.0.0.1", "::1", "fd00::1"}),
    "IPv6 disabled": ("sysctl -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.lo.disable_ipv6=1", {"127.0.0.1"}),
    "IPv6 apart from IPv4": ("sysctl -w net.ipv6.bindv6only=1", {"127.0.0.1"}),
}
ASK = """
import http.client, json, sys, time

answers = {}
for address in sys.argv[2:]:
    for _ in range(200):
        try:
            connection = http.client.HTTPConnection(address, int(sys.argv[1]))
            connection.request("GET", "/client")
            answers[address] = connection.getresponse().read().decode()
            break
        except OSError:
            time.sleep(0.05)
print(json.dumps(answers))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has network namespaces")
@pytest.mark.parametrize("network", NETWORKS)
def test_port_is_served_over_every_address(project: Path, tmp_path: Path, network: str) -> None:
    """As a platform sets it: some connect over IPv6 only, and some machines have no IPv6."""
    isolated = ("unshare", "--net", "--map-root-user")
    if run(*isolated, "ip", "link", "set", "lo", "up", cwd=tmp_path, check=False).returncode:
        pytest.skip("this machine allows no network namespaces")
    (tmp_path / "ask.py").write_text(ASK)
    prepare, addresses = NETWORKS[network]
    gunicorn, python = (shlex.quote(str(project / ".venv/bin" / name)) for name in ("gunicorn", "python"))
    script = f"""
        ip link set lo up
        ip -6 address add fd00::1/128 dev lo
        {prepare} > {tmp_path}/prepared
        {gunicorn} > {tmp_path}/log 2>&1 &
        {python} {tmp_path}/ask.py $PORT {" ".join(addresses)}
        {shlex.join(health_check())} && kill $!
    """
    settings: dict[str, Any] = {"FLASK_SECRET_KEY": SECRET, "PORT": "8123", "WEB_CONCURRENCY": "1"}

    printed = run(*isolated, "bash", "-euc", script, cwd=project, **settings).stdout

    assert json.loads(printed) == {address: address for address in addresses}, (tmp_path / "log").read_text()


def test_page_that_needs_no_session_sets_no_cookie(production: int) -> None:
    assert "Set-Cookie" not in get(production)[0].headers


def test_session_holds_over_two_workers(production: int) -> None:
    cookie, counts = "", []
    for _ in range(60):
        response, body = get(production, "/visits", Cookie=cookie)
        cookie = response.headers["Set-Cookie"].partition(";")[0]
        counts.append(int(body))

    assert counts == list(range(1, 61))


def test_secret_is_changed_in_steps_of_which_neighbors_share_sessions(project: Path) -> None:
    """As the README lists them: while some processes have taken a step, the others are at the one before."""
    secrets = {"old": SECRET, "new": SECRET[::-1]}
    listed = re.findall(r"^(FLASK_SECRET_KEY=.*?) +# \d\. ", (project / "README.md").read_text(), re.MULTILINE)
    steps = [
        {name: secrets[key] for name, key in (setting.split("=") for setting in line.split())}
        for line in ("FLASK_SECRET_KEY=old", *listed)
    ]
    assert len(steps) == 4
    assert steps[-1] == {"FLASK_SECRET_KEY": secrets["new"]}

    def visits(first: dict[str, str], second: dict[str, str]) -> list[str]:
        """Count visits to two processes in turn, with the cookie of the other each time."""
        cookie, counts = "", []
        with serving(project, *GUNICORN, **first) as one, serving(project, *GUNICORN, **second) as two:
            for port in (one, two, one, two):
                response, body = get(port, "/visits", Cookie=cookie)
                cookie = response.headers["Set-Cookie"].partition(";")[0]
                counts.append(body)
        return counts

    for before, after in pairwise(steps):
        assert visits(before, after) == ["1", "2", "3", "4"]
    assert visits(steps[0], steps[2]) == ["1", "2", "1", "2"], "no step can be left out"


def test_two_workers_that_start_together_in_debug_mode_share_a_secret(project: Path) -> None:
    (project / "instance" / "secret_key").unlink(missing_ok=True)

    with serving(project, *GUNICORN, FLASK_DEBUG="1") as port:
        test_session_holds_over_two_workers(port)


def test_forwarded_headers_are_ignored_without_the_option(production: int) -> None:
    _response, body = get(production, X_Forwarded_Host="evil.example", X_Forwarded_Prefix="/evil")

    assert "evil" not in body


def test_cross_site_form_is_refused(production: int) -> None:
    assert get(production, "/", "POST", Sec_Fetch_Site="cross-site")[0].status == 403
    assert get(production, "/", "POST", Origin="https://evil.example")[0].status == 403
    assert get(production, "/", "POST", Sec_Fetch_Site="same-origin")[0].status == 405


@pytest.fixture(scope="module")
def threads(project: Path) -> Iterator[int]:
    """The port of gunicorn with one worker of sixteen threads, and tables."""
    run(project / ".venv" / "bin" / "flask", "db", "upgrade", cwd=project)
    with serving(project, *GUNICORN[:1], *GUNICORN[2:], WEB_CONCURRENCY="1", WEB_THREADS="16", **LOGGED) as port:
        yield port


def post_together(port: int, requests: Iterable[tuple[str, bytes, str]]) -> list[HTTPResponse]:
    """Send requests from sixteen clients at a time."""
    with ThreadPoolExecutor(16) as clients:
        return list(clients.map(lambda request: post(port, request[0], [request[1]], **sent(*request[1:])), requests))


def sent(body: bytes, kind: str) -> dict[str, str]:
    """The headers of a body."""
    return {"Content_Length": str(len(body)), "Content_Type": kind}


def test_people_of_the_tour_get_ids_of_their_own(threads: int) -> None:
    body = b'{"name": "Ada Lovelace"}'

    added = post_together(threads, [("/tour/api/people", body, "application/json")] * 400)

    assert [response.status for response in added] == [201] * 400
    assert len({response.headers["Location"] for response in added}) == 400
    assert len(json.loads(get(threads, "/tour/api/people")[1])) == 50


def test_uploads_of_the_tour_never_exceed_their_number(project: Path, threads: int) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nAda\r\n--x--\r\n'

    for _ in range(3):
        added = post_together(threads, [("/tour/uploads", body, "multipart/form-data; boundary=x")] * 64)

        assert {response.status for response in added} == {302, 409}
        stored = list((project / "instance" / "uploads").iterdir())
        assert 0 < len(stored) <= 10
        for path in stored:
            path.unlink()


def test_guestbook_of_the_tour_never_exceeds_its_number(threads: int) -> None:
    form = (b"name=Ada&message=Hello", "application/x-www-form-urlencoded")

    added = post_together(threads, [("/tour/guestbook", *form)] * 160)

    assert [response.status for response in added] == [302] * 160
    assert "100 in the book" in get(threads, "/tour/guestbook")[1]


def test_lines_of_the_log_are_whole_and_name_their_own_request(project: Path, threads: int) -> None:
    words = [f"{number}-{'x' * 3500}" for number in range(400)]

    with ThreadPoolExecutor(16) as clients:
        answered = list(clients.map(lambda word: get(threads, f"/say?word={word}")[0], words))

    lines = [json.loads(line) for line in (project / f"server-{threads}.log").read_text().splitlines()]
    said = {line["message"]: line["request_id"] for line in lines if line["logger"] == "myapp"}
    assert said == {word: response.headers["X-Request-ID"] for word, response in zip(words, answered, strict=True)}
    assert len(set(said.values())) == len(words)


UNREAD = {"/nothing": 404, "/": 405, "/up": 200, "/unread": 200, "/partly": 200, "/tour/api/people": 413}


def post(port: int, path: str, body: Iterable[bytes], **headers: str) -> HTTPResponse:
    """Send a whole request before reading the response, as most clients do."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        response.read()
        return response


@pytest.mark.parametrize("framing", ["length", "chunks", "expect", "close"])
def test_response_is_not_lost_if_the_view_does_not_read_the_body(production: int, framing: str) -> None:
    piece = b"x" * 100_000
    headers = {
        "length": {"Content_Length": "10000000"},
        "chunks": {"Transfer_Encoding": "chunked"},
        "expect": {"Content_Length": "10000000", "Expect": "100-continue"},
        "close": {"Content_Length": "10000000", "Connection": "close"},
    }[framing]
    asked = [path for path in UNREAD for _ in range(10)]

    def ask(path: str, **more: str) -> int:
        body = (b"186a0\r\n%s\r\n" % piece if framing == "chunks" else piece for _ in range(100))
        ended = chain(body, [b"0\r\n\r\n"]) if framing == "chunks" else body
        return post(production, path, ended, Content_Type="application/json", **headers, **more).status

    with ThreadPoolExecutor(4) as clients:
        answered = list(clients.map(ask, asked))
    assert answered == [UNREAD[path] for path in asked]
    assert ask("/", Origin="https://evil.example") == 403


def test_connection_goes_on_after_a_body_that_the_view_does_not_read(production: int) -> None:
    with closing(HTTPConnection("127.0.0.1", production, timeout=30)) as connection:
        for _ in range(20):
            connection.request("POST", "/nothing", b"GET /smuggled HTTP/1.1\r\n" * 100_000)
            first = connection.sock
            response = connection.getresponse()
            response.read()
            assert response.status == 404
            connection.request("GET", "/client")
            assert connection.sock is first
            response = connection.getresponse()
            assert response.read() == b"127.0.0.1"


def test_client_that_stops_in_a_body_that_the_view_does_not_read_frees_the_thread(project: Path) -> None:
    settings = {"FLASK_SECRET_KEY": SECRET, "WEB_CONCURRENCY": "1", "WEB_THREADS": "1"}
    with serving(project, "gunicorn", "--bind=127.0.0.1:{port}", **settings) as port:
        for size in (100_000, 17_000_000):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                client.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\nx" % size)
                assert client.recv(12) == b"HTTP/1.1 404"
                with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                    connection.request("GET", "/client")
                    assert connection.getresponse().status == 200


def test_commands_of_the_readme_need_no_setting(project: Path) -> None:
    """Nor do the others that serve nobody."""
    readme = (project / "README.md").read_text()
    sections = [
        readme.partition(f"## {title}\n")[2].partition("\n## ")[0] for title in ("Use the database", "Take the tour")
    ]
    typed = [re.findall(r"\buv run flask [^`#\n]+", section) for section in sections]
    assert all(typed)

    for command in (*typed[0], *typed[1], "uv run flask routes", "uv run flask shell"):
        run(*shlex.split(command), cwd=project)


def test_secret_key_runs_without_a_secret_and_without_debug_mode(project: Path) -> None:
    printed = run(project / ".venv" / "bin" / "flask", "secret-key", cwd=project).stdout.strip()

    assert len(bytes.fromhex(printed)) == 32
    with serving(project, *GUNICORN, FLASK_SECRET_KEY=printed) as port:
        assert get(port)[0].status == 200


@pytest.mark.parametrize(
    ("words", "command", "env"),
    [
        ("Without debug mode the app needs a secret to sign sessions with", ["flask", "run"], {}),
        ("Could not locate a Flask application", ["flask", "run"], {"FLASK_APP": "", "FLASK_SKIP_DOTENV": "1"}),
        ("Could not import '", ["flask", "--app", "mispelt", "run"], {}),
        ("No module named 'myapp'", ["python", "-S", "-c", "import myapp.wsgi"], {}),
    ],
)
def test_server_that_does_not_start_says_what_the_readme_explains(
    project: Path, words: str, command: list[str], env: dict[str, str]
) -> None:
    done = run(project / ".venv" / "bin" / command[0], *command[1:], cwd=project, check=False, **env)

    assert done.returncode != 0
    assert words in done.stdout
    assert words in (project / "README.md").read_text()


def test_taken_port_is_named_as_the_readme_explains(project: Path) -> None:
    readme = (project / "README.md").read_text()
    commands = project / ".venv" / "bin"
    with socket.socket() as other:
        with suppress(OSError):  # taken already
            other.bind(("127.0.0.1", 5000))
            other.listen()
        development = run(commands / "flask", "run", "--debug", cwd=project, check=False)
        production = run(
            commands / "gunicorn", "myapp.wsgi:app", "-b:5000", cwd=project, check=False, FLASK_SECRET_KEY=SECRET
        )

    assert "Port 5000 is in use by another program" in development.stdout
    assert "Address already in use" in production.stdout
    assert "Port 5000 is in use by another program" in readme
    assert "Address already in use" in readme
