"""Malformed requests by the thousand: the generated app answers none of them with a 500, and logs no traceback."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes

import pytest
from conftest import run
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from questionnaire import Questionnaire
from test_attacks import send
from test_server import GUNICORN, SECRET, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn is not for Windows")
SETTINGS = {"FLASK_SECRET_KEY": SECRET, "FLASK_TOUR": "true"}
# Views in which Flask and Werkzeug parse each part of a request.
VIEWS = """
from flask import request


@bp.route("/properties", methods=["GET", "POST"])
def properties() -> str:
    kind = type(request._get_current_object())
    for name in dir(kind):
        if not name.startswith("_") and name not in {"json", "stream"} and not callable(getattr(kind, name)):
            repr(getattr(request, name))
    return "read"


@bp.post("/json")
def parsed() -> str:
    return type(request.get_json()).__name__


@bp.post("/form")
def fields() -> str:
    return f"{len(request.form)} {len(request.files)}"


@bp.get("/numbers/<int:whole>/<float:part>")
def numbers(whole: int, part: float) -> str:
    return "numbers"
"""
# Answers requests that come as lines of JSON, without a server that refuses some of them first.
DRIVER = """
import io, json, sys
from wsgiref.util import setup_testing_defaults

pipe, sys.stdout = sys.stdout, io.StringIO()
from myapp import create_app

app = create_app()
for line in sys.stdin:
    sys.stdout.seek(0)
    sys.stdout.truncate()
    sent = json.loads(line)
    environ = sent["environ"] | {"wsgi.input": io.BytesIO(sent["body"].encode("latin-1"))}
    setup_testing_defaults(environ)
    statuses = []
    answer = app(environ, lambda status, headers, exc_info=None: statuses.append(status))
    list(answer)
    getattr(answer, "close", list)()
    print(json.dumps({"status": int(statuses[0][:3]), "log": sys.stdout.getvalue()}), file=pipe, flush=True)
"""


class Message(NamedTuple):
    """A request; text stands for the bytes of Latin-1, as in WSGI."""

    method: str = "GET"
    path: str = "/"
    query: str = ""
    headers: dict[str, str] = {}
    body: str = ""

    def environ(self) -> dict[str, str]:
        """Return the WSGI environment, without the body."""
        names = {name: name.upper().replace("-", "_") for name in self.headers}
        headers = {
            names[name] if name in ("Content-Type", "Content-Length") else f"HTTP_{names[name]}": value
            for name, value in self.headers.items()
        }
        return {"REQUEST_METHOD": self.method, "PATH_INFO": self.path, "QUERY_STRING": self.query, **headers}

    def encode(self) -> bytes:
        """Return the request as it is sent to a server."""
        target = quote_from_bytes(self.path.encode("latin-1")) + (f"?{self.query}" if self.query else "")
        headers = {"Host": "localhost", "Connection": "close", **self.headers}
        lines = [f"{self.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", self.body]).encode("latin-1")


FAR = f"Mon, {10**20} Jan 2000 00:00:00 GMT"
JSON = {"Content-Type": "application/json"}
KNOWN = [
    Message("POST", "/", headers={"Origin": "http://["}),
    Message(path="/static/\0", query="v=1"),
    Message(path="/static/style.css", headers={"If-Modified-Since": FAR}),
    Message(path="/static/style.css", headers={"Range": "bytes=0-9", "If-Range": FAR}),
    Message("POST", "/json", headers={**JSON, "Content-Length": "100000"}, body="[" * 100_000),
    Message(headers={"Host": "x" * 64}),
    Message("POST", headers={"Host": "x" * 64, "Origin": "null"}),
    Message(headers={"X-Forwarded-Host": "x" * 64}),
    Message(path="/properties", query="\xff"),
    Message(path="/static/style.css", query="v=\xff"),
]

# What parsers look for, and what makes them stumble.
TOKENS = """
/static/style.css text/html application/json multipart/form-data form-data */* bytes= gzip utf-8 utf-7 identity chunked
Basic Bearer Digest http:// https:// localhost example.com [::1] [ ] : ; , = == q= v= * % %00 %ff %2f .. // / \\ ? # @
boundary=x charset= name= filename= filename*= filename*0*= UTF-8'' x QQ== " W/ - page= q=
"""
NAMES = """
Accept Accept-Charset Accept-Encoding Accept-Language Access-Control-Request-Headers Access-Control-Request-Method
Authorization Cache-Control Connection Content-Encoding Content-Length Content-MD5 Content-Type Cookie Date Expect Host
If-Match If-Modified-Since If-None-Match If-Range If-Unmodified-Since Max-Forwards Origin Pragma Range Referer
Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Transfer-Encoding Upgrade User-Agent X-Forwarded-For X-Forwarded-Host
X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Proto X-HTTP-Method-Override X-Request-ID
"""
ROUTES = """
/ /properties /json /form /static/style.css /static/ /up /up/database /nothing /api/nothing /tour/ /tour/projects
/tour/search /tour/guestbook /tour/form /tour/uploads /tour/api/people /tour/cookies
"""
WORDS = st.sampled_from(TOKENS.split())
NUMBERS = st.one_of(
    st.integers(-5, 10**25).map(str),
    st.sampled_from(["-0", "+1", "1_0", "0x1", "\xb2", "1e999", "nan", "", "9" * 5000]),
)
TEXT = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=40)
SENTENCES = st.lists(st.one_of(WORDS, NUMBERS, TEXT), max_size=8).map("".join)
DATES = st.builds(
    "{}, {} {} {} {}:{}:00 {}".format,
    st.sampled_from(["Mon", "Xyz", ""]),
    NUMBERS,
    st.sampled_from(["Jan", "Foo", "13"]),
    NUMBERS,
    NUMBERS,
    st.one_of(st.just("00"), NUMBERS),
    st.one_of(st.sampled_from(["GMT", "", "-0000", "+9999"]), NUMBERS.map("+{}".format)),
)
VALUES = st.one_of(TEXT, SENTENCES, DATES, st.builds("bytes={}-{}".format, NUMBERS, NUMBERS))
PATHS = st.one_of(
    st.sampled_from(ROUTES.split()),
    st.sampled_from(["/properties", "/static/style.css"]),
    st.builds("{}{}".format, st.sampled_from(["/", "/static/", "/tour/hello/", "/tour/uploads/"]), SENTENCES),
    st.builds("/numbers/{}/{}".format, NUMBERS, NUMBERS),
    st.text().map(lambda text: "/tour/hello/" + text.encode(errors="surrogatepass").decode("latin-1")),
)
PARTS = st.builds(
    "--x\r\n{}{}\r\n\r\n{}\r\n".format,
    st.sampled_from(["", 'Content-Disposition: form-data; name="a"', "Content-Disposition: form-data; "]),
    SENTENCES,
    SENTENCES,
)
DOCUMENTS = st.recursive(
    st.none() | st.floats() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)
BODIES = {
    "application/json": st.one_of(
        DOCUMENTS.map(json.dumps),
        SENTENCES,
        st.builds(str.__mul__, st.sampled_from(["[", '{"":']), st.integers(1, 30_000)),
    ),
    "application/x-www-form-urlencoded": SENTENCES,
    "multipart/form-data; boundary=x": st.lists(PARTS, max_size=4).map(lambda parts: "".join([*parts, "--x--\r\n"])),
}


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Draw a request in which any part may be malformed."""
    kind = draw(st.sampled_from([None, *BODIES]))
    headers = draw(st.dictionaries(st.sampled_from(NAMES.split()), VALUES, max_size=4))
    query = re.sub(r"[\0-\x20\x7f#]", "", draw(SENTENCES))  # servers refuse these characters
    if kind is None:
        return Message(draw(st.sampled_from(["GET", "HEAD", "OPTIONS", "POST", "FOO"])), draw(PATHS), query, headers)
    body = draw(BODIES[kind])
    path = draw(st.sampled_from(["/json", "/form", "/properties", "/tour/form", "/tour/uploads", "/tour/api/people"]))
    return Message("POST", path, query, {"Content-Type": kind, "Content-Length": str(len(body)), **headers}, body)


@pytest.fixture(scope="module")
def project(questionnaire: Questionnaire, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project behind a proxy, so that the forwarded headers are read too, with its environment and the views."""
    folder = tmp_path_factory.mktemp("fuzz") / "myapp"
    questionnaire.write(folder, proxy_fix=True)
    run("uv", "sync", cwd=folder)
    run(folder / ".venv" / "bin" / "flask", "db", "upgrade", cwd=folder)
    home = folder / "src" / "myapp" / "home.py"
    home.write_text(home.read_text() + VIEWS)
    return folder


@pytest.fixture(scope="module")
def ask_app(project: Path) -> Iterator[Callable[[Message], dict[str, Any]]]:
    """Return a function that hands a request to the app itself, and returns the status and the log."""
    command: list[str | Path] = [project / ".venv" / "bin" / "python", "-c", DRIVER]
    with subprocess.Popen(
        command, cwd=project, env=os.environ | SETTINGS, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdin
        assert driver.stdout
        stdin, stdout = driver.stdin, driver.stdout

        def ask(message: Message) -> dict[str, Any]:
            print(json.dumps({"environ": message.environ(), "body": message.body}), file=stdin, flush=True)
            answer: dict[str, Any] = json.loads(stdout.readline())
            return answer

        yield ask
        stdin.close()


@pytest.mark.parametrize("examples", [300, pytest.param(3_000, marks=pytest.mark.slow)])
def test_app_answers_any_request_without_a_traceback(
    ask_app: Callable[[Message], dict[str, Any]], examples: int
) -> None:
    @given(message=messages())
    @settings(deadline=None, max_examples=examples, suppress_health_check=list(HealthCheck))
    def answers(message: Message) -> None:
        answer = ask_app(message)

        assert answer["status"] < 500
        assert "Traceback" not in answer["log"]

    for message in KNOWN:
        answers = example(message=message)(answers)
    answers()


@pytest.mark.parametrize("message", KNOWN, ids=lambda message: ascii(message)[8:60])
def test_malformed_request_is_refused_or_ignored(
    ask_app: Callable[[Message], dict[str, Any]], message: Message
) -> None:
    assert ask_app(message)["status"] in {200, 206, 400, 403, 404, 405}


def test_server_answers_any_request_without_a_traceback(project: Path) -> None:
    with serving(project, *GUNICORN, **SETTINGS) as port:

        @given(message=messages())
        @settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
        def answers(message: Message) -> None:
            answered = send(port, message.encode())
            statuses = re.findall(rb"^HTTP/1\.1 (\d+)", answered, re.MULTILINE)

            assert statuses
            assert all(int(status) in {*range(500), 501} for status in statuses)

        for message in KNOWN:
            answers = example(message=message)(answers)
        answers()

    assert "Traceback" not in (project / f"server-{port}.log").read_text(encoding="utf-8")
