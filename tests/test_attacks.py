"""What a hostile client sends over a real socket, with a proxy believed and without one: nothing comes of it."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import pytest
from conftest import run
from questionnaire import Questionnaire
from test_server import SECRET, free_port, serving
from test_tour import FORM, PROBLEM, Answer, ask, multipart

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn is not for Windows")
HOSTS = "127.0.0.1,example.com"
LIMIT = 2 * 1024 * 1024
VIEWS = '''
from flask import current_app, request, url_for


@bp.get("/seen")
def seen() -> dict[str, object]:
    """Show the client and this address as the app sees them."""
    return {"client": request.remote_addr, "url": request.url, "home": url_for(".index", _external=True)}


@bp.post("/body")
def body() -> str:
    return str(len(request.get_data()))


@bp.post("/fields")
def fields() -> str:
    return str(len(request.form))


@bp.get("/say")
def say() -> str:
    current_app.logger.warning("%s, said %s", request.args["text"], request.user_agent)
    return "said"


@bp.get("/crash")
def crash() -> str:
    raise RuntimeError(request.url)
'''
COOKIES = """
import json, sys, time
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import TimestampSigner

def cookie(key, age=0):
    app = Flask(__name__)
    app.secret_key = key
    TimestampSigner.get_timestamp = lambda self: int(time.time()) - age
    return SecureCookieSessionInterface().get_signing_serializer(app).dumps({"tour_name": "Ada"})

key = sys.argv[1]
month = 32 * 24 * 60 * 60
print(json.dumps({"own": cookie(key), "expired": cookie(key, month), "foreign": cookie(key[::-1])}))
"""


class Target(NamedTuple):
    """A server under attack."""

    project: Path
    port: int
    proxied: bool

    def log(self) -> list[dict[str, Any]]:
        """What the server has logged, where each line is one JSON object."""
        text = (self.project / f"server-{self.port}.log").read_text(encoding="utf-8")
        entries = [json.loads(line) for line in text.splitlines()]
        assert all(isinstance(entry, dict) for entry in entries)
        return entries


def make(questionnaire: Questionnaire, folder: Path, **answers: Any) -> Path:
    """A project with its environment, and views that show what reaches them."""
    questionnaire.write(folder, **answers)
    run("uv", "sync", cwd=folder)
    home = folder / "src" / "myapp" / "home.py"
    home.write_text(home.read_text() + VIEWS)
    return folder


PROXIED = [pytest.param(False, id="bare"), pytest.param(True, id="proxied", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=PROXIED)
def target(
    request: pytest.FixtureRequest, questionnaire: Questionnaire, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """A project on gunicorn, as its own settings have it."""
    project = make(questionnaire, tmp_path_factory.mktemp("attacks") / "myapp", proxy_fix=request.param)
    for secret in (
        "instance/secret_key",
        ".env",
        ".git/config",
        "src/myapp/static/.htpasswd",
        "src/myapp/static/a.js.map",
    ):
        (project / secret).parent.mkdir(parents=True, exist_ok=True)
        (project / secret).write_text("swordfish")
    settings = {
        "FLASK_DEBUG": "False",  # a text, and no less than false
        "FLASK_MAX_CONTENT_LENGTH": str(LIMIT),
        "FLASK_SECRET_KEY": SECRET,
        "FLASK_TRUSTED_HOSTS": HOSTS,
        "HOME": str(project.parent / "home"),
        "WEB_CONCURRENCY": "1",
    }
    with serving(project, "gunicorn", "--bind=127.0.0.1:{port}", **settings) as port:
        yield Target(project, port, request.param)


def send(port: int, *parts: bytes) -> bytes:
    """Send bytes as they are, end, and read all that comes back."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        with suppress(ConnectionError):  # whoever is refused need not be read to the end
            for part in parts:
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while piece := client.recv(65536):
                answer += piece
    return answer


def status(answer: bytes) -> int:
    """The status of the one response that came."""
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    return int(answer.split()[1])


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Port": "666"},
        {"X-Forwarded-Prefix": "/evil"},
        {"X-Forwarded-Ssl": "on"},
        {"X-Forwarded-Protocol": "ssl"},
        {"X-Forwarded-Server": "evil.example"},
        {"Forwarded": "for=198.51.100.66;host=evil.example;proto=https"},
        {"X-Real-IP": "198.51.100.66"},
        {"X-Original-URL": "/crash"},
        {"X-Rewrite-URL": "/crash"},
        {"X-HTTP-Method-Override": "DELETE"},
        {"Script-Name": "/evil"},
        {"SCRIPT_NAME": "/evil"},
        {"Remote-Addr": "198.51.100.66"},
        {"X_Forwarded_For": "198.51.100.66"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_header_that_nobody_believes_changes_nothing(target: Target, headers: dict[str, str]) -> None:
    base = f"http://127.0.0.1:{target.port}/"

    answer = ask(target.port, "/seen", headers=headers)

    assert json.loads(answer.body) == {"client": "127.0.0.1", "url": f"{base}seen", "home": base}


def test_forwarded_headers_are_believed_only_behind_a_proxy(target: Target) -> None:
    """A proxy adds the client's address to whatever the client has put there."""
    sent = {
        "X-Forwarded-For": "198.51.100.66, 203.0.113.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "example.com",
    }

    answer = ask(target.port, "/seen", headers=sent)

    client, base = "127.0.0.1", f"http://127.0.0.1:{target.port}/"
    if target.proxied:
        client, base = "203.0.113.7", "https://example.com/"
    assert json.loads(answer.body) == {"client": client, "url": f"{base}seen", "home": base}
    assert ("strict-transport-security" in answer.headers) is target.proxied


@pytest.mark.parametrize("target", PROXIED[1:], indirect=True)
def test_count_beyond_the_one_proxy_believes_the_client_and_the_doctor_says_so(target: Target) -> None:
    settings = {"FLASK_SECRET_KEY": SECRET, "FLASK_TRUSTED_HOSTS": HOSTS, "FLASK_PROXY_FIX_X_FOR": "2"}
    honest = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "example.com"}
    forged = honest | {"X-Forwarded-For": f"198.51.100.66, {honest['X-Forwarded-For']}"}
    flask = target.project / ".venv" / "bin" / "flask"
    words = ["doctor", "--json", "--port=0", *(f"--header={name}: {value}" for name, value in honest.items())]

    def client(port: int) -> str:
        return str(json.loads(ask(port, "/seen", headers=forged).body)["client"])

    def findings(**env: str) -> list[str]:
        listed = json.loads(run(flask, *words, cwd=target.project, check=False, **env).stdout)
        return [finding["do"] for finding in listed if finding["check"] == "proxy"]

    with serving(target.project, "gunicorn", "--bind=127.0.0.1:{port}", **settings) as port:
        assert client(port) == "198.51.100.66"
    assert client(target.port) == "203.0.113.7"
    (cure,) = findings(**settings)
    assert cure.endswith("FLASK_PROXY_FIX_X_FOR=1")
    assert findings(**settings | {"FLASK_PROXY_FIX_X_FOR": "1"}) == []


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "example.com.evil.example",
        "example.com@evil.example",
        "evil.example:80#example.com",
        "",
        "xn--e",
        "evil.example\x85\x9b2J{}",
        "evil.example\t%s",
        "evil.example" + "x" * 4000,
    ],
)
def test_forged_host_is_refused(target: Target, host: str) -> None:
    answers = [ask(target.port, path, headers={"Host": host}) for path in ("/", "/seen", "/tour/projects", "/nothing")]
    answers.append(ask(target.port, "/", headers={"Host": host, "Accept": "application/json"}))
    if target.proxied:
        answers.append(ask(target.port, "/", headers={"X-Forwarded-Host": host or "evil.example"}))

    for answer in answers:
        assert answer.status == 400
        assert "evil" not in answer.body
        assert "location" not in answer.headers
    if host:
        said = [
            entry
            for entry in target.log()
            if f"Host {host.lower()!r} is not in FLASK_TRUSTED_HOSTS" == entry["message"]
        ]
        assert len(said) >= len(answers) - target.proxied
        assert {entry["level"] for entry in said} == {"WARNING"}


@pytest.fixture(scope="module")
def cookies(target: Target) -> dict[str, str]:
    """Session cookies that are signed with the app's key, long ago with it, and with another."""
    python = target.project / ".venv" / "bin" / "python"
    signed = json.loads(run(python, "-c", COOKIES, SECRET, cwd=target.project).stdout)
    own: str = signed["own"]
    payload, _, signature = own.partition(".")
    tampered = {"tampered": f"{payload[:-2]}Q.{signature}", "unsigned": payload, "oversized": own + "A" * 6000}
    return {**signed, **tampered, "nonsense": "..{}\xff", "empty": ""}


@pytest.mark.parametrize("kind", ["expired", "foreign", "tampered", "unsigned", "oversized", "nonsense", "empty"])
def test_session_cookie_that_is_not_ours_is_ignored(target: Target, cookies: dict[str, str], kind: str) -> None:
    def visit(cookie: str) -> Answer:
        return ask(target.port, "/tour/session", headers={"Cookie": f"__Host-session={cookie}"})

    assert "Welcome back, Ada!" in visit(cookies["own"]).body
    answer = visit(cookies[kind])
    assert answer.status == 200
    assert "Welcome back, Ada!" not in answer.body


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://example.com", "Host": "example.com"}, True),
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "https://example.com.evil.example", "Host": "example.com"}, True),
        ({"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"}, True),
        ({"Origin": "https://example.com", "Host": "example.com"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, False),
        ({}, False),  # no browser, so nobody's cookies
    ],
)
@pytest.mark.parametrize("content_type", [*FORM.values(), "text/plain", "application/json"])
def test_post_of_another_site_is_refused(
    target: Target, headers: dict[str, str], refused: bool, content_type: str
) -> None:
    answer = ask(target.port, "/fields", "POST", "name=Ada", headers | {"Content-Type": content_type})

    untrusted = target.proxied and "X-Forwarded-Host" in headers
    assert answer.status == (400 if untrusted else 403 if refused else 200)


@pytest.mark.parametrize("address", ["//evil.example", r"/\evil.example", "https:evil.example", "https://evil.example"])
def test_nobody_is_sent_to_another_site(target: Target, address: str) -> None:
    """No view takes an address to go to; slashes in a path do not make one either."""
    asked = [f"?{name}={quote(address, safe='')}" for name in ("next", "url", "return_to", "redirect")]
    paths = [f"/tour/redirect{query}" for query in asked] + [f"/tour/projects{query}" for query in asked]
    paths += [
        f"{address}/tour/projects",
        f"{address}/..//tour/projects",
        f"/tour/{address}//projects",
        f"/tour/uploads/{address}",
    ]
    answers = [ask(target.port, path if path.startswith("/") else f"/{path}") for path in paths]
    form = f"name=Ada&next={quote(address)}"
    answers += [ask(target.port, f"/tour/session{query}", "POST", form, FORM) for query in asked]

    for answer in answers:
        location = urlsplit(answer.headers.get("location", ""))
        assert location.netloc in ("", f"127.0.0.1:{target.port}")
        assert not re.match(r"[/\\]{2}", location.path)
    assert sum("location" in answer.headers for answer in answers) >= 12


def climbs(name: str) -> list[str]:
    """Ways out of a folder, to a file three above it, plain, encoded, and encoded twice."""
    ways = []
    for up, slash in (
        ("..", "/"),
        ("..", "%2f"),
        ("%2e%2e", "%2f"),
        ("%252e%252e", "%252f"),
        ("..", "%5c"),
        ("..", "\\"),
    ):
        ways += [f"{up}{slash}" * steps + name for steps in (1, 2, 3, 4)]
    return [
        *ways,
        f"%00{name}",
        f"{name}%00.css",
        f"..%00/{name}",
        f"....//....//{name}",
        f"/{name}",
        f"%2f{name}",
        f"~/{name}",
    ]


@pytest.mark.parametrize("folder", ["", "static/", "static/x/../", "tour/static/", "tour/uploads/"])
@pytest.mark.parametrize(
    "name", ["secret_key", "instance/secret_key", ".env", ".git/config", "home.py", "templates/layout.html", "myapp.db"]
)
def test_no_way_leads_to_another_file(target: Target, folder: str, name: str) -> None:
    for way in [name, *climbs(name)]:
        answer = ask(target.port, f"/{folder}{way}")
        if answer.status == 308:  # many slashes become one
            answer = ask(target.port, urlsplit(answer.headers["location"]).path)

        assert answer.status in (400, 404), way
        assert "swordfish" not in answer.body


@pytest.mark.parametrize(
    "name", ["../../../../x.txt", "..\\..\\x.txt", "/etc/x.txt", "x.txt\r\nX-Evil: 1", "..", "%2e%2e%2fx"]
)
def test_upload_stays_in_its_folder(target: Target, name: str) -> None:
    folder = target.project / "instance" / "uploads"
    folder.mkdir(exist_ok=True)
    others = {path for path in target.project.parent.rglob("*") if path.parent != folder and "log" not in path.name}

    answer = ask(target.port, "/tour/uploads", "POST", *multipart(name, b"swordfish"))

    assert answer.status in (302, 303, 400)
    for stored in folder.iterdir():
        headers = ask(target.port, f"/tour/uploads/{stored.name}").headers
        assert headers["content-disposition"].startswith("attachment")
        assert "x-evil" not in headers
        stored.unlink()
    now = {path for path in target.project.parent.rglob("*") if path.parent != folder and "log" not in path.name}
    assert {path for path in now - others if path.suffix != ".pyc" and path.name != "__pycache__"} == set()


def log_up_to(target: Target, path: str) -> list[dict[str, Any]]:
    """The log, once a request is in it: that happens after it is answered."""
    deadline = time.monotonic() + 30
    while not any(entry.get("path") == path for entry in target.log()):
        assert time.monotonic() < deadline, target.log()
        time.sleep(0.05)
    return target.log()


def test_nothing_forges_a_header_or_a_line_of_the_log(target: Target) -> None:
    line = '\r\n{"level": "CRITICAL", "message": "forged"}\r\nX-Evil: 1\r\n\u2028\x85\0\x1b[2J'
    evil = quote(line)
    for path in (
        f"/say?text={evil}",
        f"/{evil}",
        f"/tour/projects?{evil}",
        f"/tour/hello/{evil}",
        f"/tour/redirect?{evil}",
    ):
        answer = ask(target.port, path, headers={"User-Agent": "\x85{}", "X-Request-ID": 'forged"\x85'})
        assert "x-evil" not in answer.headers
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    for raw in (b"\r\nX-Evil: 1", b"\n{}", b"\r{}", b"\0"):
        send(target.port, b"GET /%s HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n" % raw)
        send(target.port, b"GET / HTTP/1.1\r\nHost: example.com\r\nA: %s\r\nConnection: close\r\n\r\n" % raw)
    secret = {"Authorization": "Bearer swordfish", "Cookie": "__Host-session=swordfish", "Referer": "/?key=swordfish"}
    ask(target.port, "/last?token=swordfish", headers=secret)

    entries = log_up_to(target, "/last")
    assert not [entry for entry in entries if entry["level"] == "CRITICAL"]
    assert len([entry for entry in entries if entry["message"].startswith("\r\n{")]) == 1
    assert "swordfish" not in json.dumps(entries)
    assert SECRET not in json.dumps(entries)


CHUNKED = b"Transfer-Encoding: chunked\r\n"
SECOND = b"GET /seen?smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n"
SMUGGLED = {
    "both lengths": b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "both lengths, the other way": CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "the same length twice": b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": b"Content-Length: 4, 4\r\n\r\nabcd",
    "a signed length": b"Content-Length: +4\r\n\r\nabcd",
    "a negative length": b"Content-Length: -1\r\n\r\nabcd",
    "a hexadecimal length": b"Content-Length: 0x4\r\n\r\nabcd",
    "an underscore in a length": b"Content-Length: 1_0\r\n\r\nabcdefghij",
    "an Arabic length": "Content-Length: \u0664\r\n\r\nabcd".encode(),
    "another coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks that are no last coding": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunks twice": CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "a folded header": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a bare line feed in the head": b"A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare carriage return": b"A: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a NUL": b"A: b\0\r\n\r\n",
    "no colon": b"Transfer-Encoding\r\n\r\n",
    "a second host": b"Host: evil.example\r\n\r\n",
    "a chunk of no size": CHUNKED + b"\r\nzz\r\nabc\r\n0\r\n\r\n",
    "a chunk with a prefix": CHUNKED + b"\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk of a negative size": CHUNKED + b"\r\n-1\r\nabc\r\n0\r\n\r\n",
    "a chunk without its end": CHUNKED + b"\r\n3\r\nabcdef\r\n0\r\n\r\n",
    "a chunk with bare line feeds": CHUNKED + b"\r\n3\nabc\n0\n\n",
    "a chunk beyond all memory": CHUNKED + b"\r\nffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a trailer that is a header": CHUNKED + b"\r\n3\r\nabc\r\n0\r\nHost: evil.example\r\n\r\n",
}


@pytest.mark.parametrize("shape", SMUGGLED)
@pytest.mark.parametrize("path", [b"/body", b"/nothing"])
def test_smuggled_request_is_refused_and_the_connection_ends(target: Target, shape: str, path: bytes) -> None:
    """Whether a view reads the body or not, what follows is no request of its own."""
    answer = send(target.port, b"POST %s HTTP/1.1\r\nHost: example.com\r\n" % path + SMUGGLED[shape] + SECOND)

    assert int(answer.split()[1]) in ((400, 501) if path == b"/body" else (400, 404, 501))
    assert b"HTTP/1.1 200" not in answer


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/9.9",
        b"GET / HTTP/1.10",
        b"GET /",
        b"GET  / HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"get / HTTP/1.1",
        b"G<script>T / HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"PROXY TCP4 198.51.100.66 127.0.0.1 1 2\r\nGET / HTTP/1.1",
        b"\x16\x03\x01\x00\xa5<script>",
        b"GET / HTTP/1.1\nA: b",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1",
        b"GET / HTTP/1.1\r\nA: " + b"<script>" * 2000,
        b"GET / HTTP/1.1" + b"\r\nA: b" * 200,
        b"GET / HTTP/1.1\r\nExpect: <script>",
    ],
    ids=lambda line: ascii(line)[2:30],
)
def test_request_that_is_none_is_refused(target: Target, line: bytes) -> None:
    answer = send(target.port, line + b"\r\nHost: example.com\r\n\r\n")

    assert status(answer) in (400, 414, 417, 431)
    assert b"<script" not in answer


def test_form_of_ten_thousand_fields_is_refused(target: Target) -> None:
    fields = [f"field{number}" for number in range(10_000)]
    parts = "".join(f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n1\r\n' for name in fields)

    typed = ask(target.port, "/fields", "POST", "=1&".join(fields), FORM)
    mixed = ask(target.port, "/fields", "POST", f"{parts}--x--", {"Content-Type": "multipart/form-data; boundary=x"})

    assert typed.status == mixed.status == 413


def test_percent_encoded_form_is_refused_before_it_is_decoded(target: Target) -> None:
    """Decoding takes up to 80 times the size of the form."""
    body = "%41" * (LIMIT // 3)
    assert ask(target.port, "/fields", "POST", body, FORM).status == 413
    assert ask(target.port, "/fields", "POST", body[: 1024 * 1024], FORM).status == 200


FORM_LINE = b"Content-Type: application/x-www-form-urlencoded\r\n"


@pytest.mark.parametrize("path", [b"/body", b"/fields"])
def test_body_that_is_not_as_long_as_it_says(target: Target, path: bytes) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n" % path + FORM_LINE

    assert status(send(target.port, head, b"Content-Length: 100\r\n\r\nname=Ada")) == 400
    assert status(send(target.port, head, b"Content-Length: 3\r\n\r\na=1&b=2")) == 200
    assert status(send(target.port, head, b"Content-Length: %d\r\n\r\n" % (LIMIT + 1))) == 413
    assert status(send(target.port, head, b"Content-Length: 99999999999999999999999\r\n\r\n")) == 413
    for size, refused in ((1000, 200), (LIMIT + 1, 413)):
        body = b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"
        assert status(send(target.port, head, CHUNKED, b"\r\n", body)) == refused


def test_methods_are_those_of_the_view(target: Target) -> None:
    page = ask(target.port, "/")
    head = ask(target.port, "/", "HEAD")
    options = ask(target.port, "/", "OPTIONS")

    assert (head.status, head.body) == (200, "")
    assert head.headers["content-length"] == str(len(page.body.encode()))
    assert (options.status, options.body) == (200, "")
    assert set(options.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    for path in ("/", "/static/style.css", "/seen"):
        for method in ("TRACE", "CONNECT", "BREW", "PROPFIND", "PUT", "DELETE", "M-SEARCH"):
            answer = ask(target.port, path, method, headers={"X-Secret": "swordfish"})
            assert answer.status == 405
            assert "swordfish" not in answer.body
            assert "content-security-policy" in answer.headers


WORD = "reflected4711"


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_error_repeats_nothing_of_the_request(target: Target, accept: str) -> None:
    sent = {
        "Accept": accept,
        "Cookie": f"{WORD}={WORD}; __Host-session={WORD}",
        "Referer": f"http://{WORD}.example/",
        "User-Agent": WORD,
        "X-Request-ID": f"<{WORD}>",
    }
    cases: list[tuple[int, str, str, bytes | None, Mapping[str, str]]] = [
        (400, f"/{WORD}?{WORD}", "GET", None, {"Host": f"{WORD}.example"}),
        (400, f"/tour/form?{WORD}", "POST", f"{WORD}={WORD}".encode(), FORM),
        (403, f"/{WORD}?{WORD}", "POST", WORD.encode(), {"Origin": f"http://{WORD}.example"}),
        (404, f"/{WORD}?{WORD}", "GET", None, {}),
        (404, f"/static/{WORD}?{WORD}", "GET", None, {}),
        (405, f"/?{WORD}", WORD.upper(), WORD.encode(), {}),
        (413, f"/fields?{WORD}", "POST", b"&".join([WORD.encode()] * 2000), FORM),
        (415, f"/tour/api/people?{WORD}", "POST", WORD.encode(), {"Content-Type": WORD}),
        (500, f"/crash?{WORD}", "GET", None, {}),
    ]
    for code, path, method, body, headers in cases:
        answer = ask(target.port, path, method, body, {**sent, **headers})

        assert answer.status == code, path
        assert WORD not in answer.body.lower()
        assert not [value for value in answer.headers.values() if WORD in value.lower()]
        if accept == "application/json":
            assert answer.headers["content-type"] == PROBLEM


def test_debugger_is_out_of_reach(target: Target) -> None:
    home = ask(target.port, "/").body
    commands = ("resource&f=debugger.js", "resource&f=style.css", "pinauth&pin=1", "printpin", "1%2B1&frm=0")

    for command in commands:
        assert ask(target.port, f"/?__debugger__=yes&cmd={command}").body == home
        answer = ask(target.port, f"/crash?__debugger__=yes&cmd={command}")
        assert answer.status == 500
        assert "RuntimeError" not in answer.body
    assert ask(target.port, "/console").status == 404


def test_server_opens_no_way_to_control_it(target: Target) -> None:
    assert not (target.project.parent / "home").exists()
    assert not [path for path in target.project.rglob("*") if path.is_socket()]


def test_page_for_everybody_may_be_kept(target: Target) -> None:
    headers = ask(target.port, "/").headers

    assert "no-store" not in headers.get("cache-control", "")
    assert not headers.keys() & {"set-cookie", "x-xss-protection"}
    assert headers["vary"] == "Cookie", "a flashed message would be for one visitor"
    assert ask(target.port, "/tour/session").headers["vary"] == "Cookie"
    assert "vary" not in ask(target.port, "/static/style.css").headers


@contextmanager
def stalled(port: int, count: int) -> Iterator[None]:
    """Clients that each begin a request, and stop in the middle of its head or its body."""
    with ExitStack() as stack:
        for number in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            head = b"POST /body HTTP/1.1\r\nHost: example.com\r\n"
            client.sendall(head + (b"Content-Length: 9\r\n\r\n12345" if number % 2 else b"A: b"))
        yield


def answers(port: int, seconds: float = 30) -> bool:
    """Tell whether the home page is answered in time."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
        try:
            return client.recv(12) == b"HTTP/1.1 200"
        except TimeoutError:
            return False


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    """nginx in front of a server, with no setting but the address."""
    port = free_port()
    scratch = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}} http {{ access_log off;"
        f" {scratch} server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }} }}"
    )
    server = subprocess.Popen(["nginx", "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"])
    try:
        deadline = time.monotonic() + 30
        while True:
            with suppress(ConnectionError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert server.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(10)


@pytest.mark.slow
def test_slow_clients_hold_a_thread_each_and_a_proxy_holds_them_off(target: Target, tmp_path: Path) -> None:
    """What gunicorn.conf.py and the README say: as many as there are threads stop the app, one fewer does not."""
    settings = {"FLASK_SECRET_KEY": SECRET, "WEB_CONCURRENCY": "1", "WEB_THREADS": "3"}
    with serving(target.project, "gunicorn", "--bind=127.0.0.1:{port}", **settings) as port:
        with stalled(port, 2):
            assert all(answers(port) for _ in range(10))
        with stalled(port, 3):
            assert not answers(port, seconds=1)
        assert answers(port)
        if shutil.which("nginx") or "REQUIRE_NGINX" in os.environ:
            with nginx(tmp_path, port) as front, stalled(front, 12):
                assert all(answers(front) for _ in range(10))


@pytest.mark.slow
def test_waitress_gives_the_same_answers(target: Target) -> None:
    """The server for Windows, as the README starts it; it drops forwarded headers unless it is told not to."""
    run("uv", "pip", "install", "waitress", cwd=target.project)
    settings = {"FLASK_SECRET_KEY": SECRET, "FLASK_TRUSTED_HOSTS": HOSTS, "FLASK_MAX_CONTENT_LENGTH": str(LIMIT)}
    forged = {"X-Forwarded-For": "203.0.113.7"}
    options = re.findall(r"`(--no-clear[\w-]+)`", (target.project / "README.md").read_text())
    assert len(options) == target.proxied
    head = b"POST /body HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n"

    with serving(target.project, "waitress-serve", "--listen=127.0.0.1:{port}", "myapp.wsgi:app", **settings) as port:
        assert json.loads(ask(port, "/seen", headers=forged).body)["client"] == "127.0.0.1"
        assert ask(port, "/", headers={"Host": "evil.example"}).status == 400
        assert ask(port, "/..%2f..%2f.env").status == 404
        assert status(send(port, head, b"Content-Length: %d\r\n\r\n" % (LIMIT + 1), b"x" * (LIMIT + 1))) == 413
        body = b"%x\r\n" % (LIMIT + 1) + b"x" * (LIMIT + 1) + b"\r\n0\r\n\r\n"
        assert status(send(port, head, CHUNKED, b"\r\n", body)) == 413
        for shape in ("two lengths", "a negative length", "another coding", "a chunk of no size"):
            smuggling = head.replace(b"Connection: close\r\n", b"") + SMUGGLED[shape] + SECOND
            assert b"HTTP/1.1 200" not in send(port, smuggling)
        with stalled(port, 20):
            assert answers(port)
    command = ("waitress-serve", "--listen=127.0.0.1:{port}", *options, "myapp.wsgi:app")
    with serving(target.project, *command, **settings) as port:
        client = "203.0.113.7" if target.proxied else "127.0.0.1"
        assert json.loads(ask(port, "/seen", headers=forged).body)["client"] == client
