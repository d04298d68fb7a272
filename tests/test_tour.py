"""The tour over a real socket, as curl sees it; and what is left when it is switched off."""

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import copier
import pytest
from conftest import Render, run
from questionnaire import Questionnaire
from test_server import GUNICORN, SECRET, serving

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 191 }}"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
PROBLEM = "application/problem+json"
UUID = "7f9a3c52-8f0e-4c7b-9d1e-5a64b0c2e813"


class Answer(NamedTuple):
    """What came back: the headers with their names in lower case, and the body."""

    status: int
    headers: dict[str, str]
    body: str


def ask(
    port: int, path: str, method: str = "GET", body: str | bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send one request over a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text)


def multipart(name: str, content: bytes) -> tuple[bytes, dict[str, str]]:
    """A file as a form sends it."""
    head = f'--limit\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    return head + content + b"\r\n--limit--\r\n", {"Content-Type": "multipart/form-data; boundary=limit"}


@pytest.fixture(scope="module")
def project(questionnaire: Questionnaire, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A default project with its environment and its tables."""
    folder = tmp_path_factory.mktemp("tour") / "myapp"
    questionnaire.write(folder)
    run("uv", "sync", cwd=folder)
    run(folder / ".venv" / "bin" / "flask", "db", "upgrade", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def port(project: Path) -> Iterator[int]:
    """The port of gunicorn, with one worker because the people of the API are in its memory."""
    command = [word.replace("--workers=2", "--workers=1") for word in GUNICORN]
    with serving(project, *command, FLASK_SECRET_KEY=SECRET, SWORDFISH="swordfish") as port:
        yield port


@pytest.mark.parametrize(
    ("path", "status", "parts"),
    [
        ("", 200, ["What Flask and WSGI are", 'href="/tour/api/people"', "The code"]),
        ("wsgi", 200, ["Flask.__call__", "<dd>GET</dd>", "<dd>/tour/wsgi</dd>", "<dd>http</dd>", "gunicorn/"]),
        ("rules/string/ada", 200, ["<dd>ada</dd>", "<dd>str</dd>"]),
        ("rules/int/42", 200, ["<dd>42</dd>", "<dd>int</dd>", "bp = Blueprint(", "app.register_blueprint(bp)"]),
        ("rules/float/1.5", 200, ["<dd>1.5</dd>", "<dd>float</dd>"]),
        ("rules/path/a/b", 200, ["<dd>a/b</dd>", "<dd>str</dd>"]),
        (f"rules/uuid/{UUID}", 200, [f"<dd>{UUID}</dd>", "<dd>UUID</dd>"]),
        ("rules/int/ada", 404, ['class="error-code">404']),
        ("rules/int/-1", 404, []),
        ("rules/string/a/b", 404, []),
        ("projects/", 200, ["<dd>/tour/projects/</dd>"]),
        ("about", 200, ["<dd>/tour/about</dd>"]),
        ("about/", 404, []),
        ("urls", 200, ["/tour/search?q=flask", "Ada%20&amp;%20%CE%A9%3F", "http://127.0.0.1:", "#code"]),
        ("methods", 200, ["<form"]),
        ("static-files", 200, ["<dd>/static/style.css"]),
        ("hello/", 200, ["Hello, whoever you are!", "return render_template("]),
        ("hello/%3Cscript%3E", 200, ["Hello, &lt;script&gt;!"]),
        ("search", 200, ["Ask for anything"]),
        ("search?q=json", 200, ['href="/tour/json"']),
        ("form", 200, ["<form"]),
        ("context", 200, ["<dd>myapp</dd>", "<dd>Hello, Ada!</dd>"]),
        ("uploads", 200, ["multipart/form-data"]),
        ("cookies", 200, ["<dd>none yet</dd>"]),
        ("redirected", 200, ['href="/tour/abort/418"', "app.register_error_handler("]),
        ("abort/418", 418, ['class="error-code">418']),
        ("abort/500", 500, ['class="error-code">500']),
        ("abort/499", 404, []),
        ("abort/200", 404, []),
        ("responses/string", 200, ["<h1>"]),
        ("responses/tuple", 201, []),
        ("responses/stream", 200, ["3 …\n2 …\n1 …\nGo!"]),
        ("responses/wsgi", 200, ["Another WSGI app"]),
        ("responses/tea", 404, []),
        ("json", 200, ["curl -i --json"]),
        ("session", 200, ["secret-key"]),
        ("flash", 200, ["Flash one of each"]),
        ("middleware", 200, ["<dd>127.0.0.1</dd>", "class ServerTiming", "app.wsgi_app = ServerTiming("]),
        ("guestbook", 200, ["Sign the book"]),
        ("running", 200, ["gunicorn myapp.wsgi:app", "Off: errors are logged"]),
    ],
)
def test_address_answers(port: int, path: str, status: int, parts: list[str]) -> None:
    answer = ask(port, f"/tour/{path}")

    assert answer.status == status
    for part in parts:
        assert part in answer.body


def test_slash_and_redirect(port: int) -> None:
    assert ask(port, "/tour/projects").status == 308
    assert ask(port, "/tour/projects").headers["location"].endswith("/tour/projects/")
    assert ask(port, "/tour/redirect").headers["location"] == "/tour/redirected"


def test_methods(port: int) -> None:
    assert "POST brought “word”" in ask(port, "/tour/methods", "POST", "word=word", FORM).body
    assert ask(port, "/tour/methods", "HEAD").body == ""
    allowed = {"GET", "HEAD", "OPTIONS", "POST"}
    assert set(ask(port, "/tour/methods", "OPTIONS").headers["allow"].split(", ")) == allowed
    for accept, kind in (("text/html", "text/html; charset=utf-8"), ("application/json", PROBLEM)):
        answer = ask(port, "/tour/methods", "DELETE", headers={"Accept": accept})
        assert answer.status == 405
        assert set(answer.headers["allow"].split(", ")) == allowed
        assert answer.headers["content-type"] == kind


def test_form_without_its_field(port: int) -> None:
    answer = ask(port, "/tour/form", "POST", "", FORM)

    assert answer.status == 400
    assert 'class="error-code">400' in answer.body


@pytest.mark.parametrize(("kind", "expected"), [("dict", dict), ("list", list)])
def test_response_is_json(port: int, kind: str, expected: type) -> None:
    assert isinstance(json.loads(ask(port, f"/tour/responses/{kind}").body), expected)


def test_response_has_a_header(port: int) -> None:
    assert ask(port, "/tour/responses/response").headers["x-tour"] == "make_response"


def test_api(port: int) -> None:
    answer = ask(port, "/tour/api/people", "POST", '{"name": "Grace Hopper"}', JSON)
    assert answer.status == 201
    assert json.loads(ask(port, answer.headers["location"]).body)["name"] == "Grace Hopper"

    for body, headers, status in (("x", FORM, 415), ("{", JSON, 400), ("[]", JSON, 422), ('{"name":5}', JSON, 422)):
        answer = ask(port, "/tour/api/people", "POST", body, headers)
        assert answer.status == status
        assert answer.headers["content-type"] == PROBLEM
        assert json.loads(answer.body)["status"] == status
    assert ask(port, "/tour/api/people/0").headers["content-type"] == PROBLEM


def test_upload_goes_round(port: int, project: Path) -> None:
    body, headers = multipart("../../page.html", b"<script>alert(1)</script>")
    assert ask(port, "/tour/uploads", "POST", body, headers).headers["location"] == "/tour/uploads"
    (stored,) = (project / "instance" / "uploads").iterdir()
    assert re.fullmatch(r"[0-9a-f]{16}-page.html", stored.name)

    answer = ask(port, f"/tour/uploads/{stored.name}")
    assert answer.body == "<script>alert(1)</script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"

    assert ask(port, f"/tour/uploads/{stored.name}/delete", "POST").status in (302, 303)
    assert not stored.exists()


@pytest.mark.parametrize(
    ("name", "content", "status"), [("", b"1", 400), ("a.txt", b"", 400), ("a.txt", b"1" * (1024 * 1024 + 1), 413)]
)
def test_wrong_upload_is_answered(port: int, project: Path, name: str, content: bytes, status: int) -> None:
    answer = ask(port, "/tour/uploads", "POST", *multipart(name, content))

    assert answer.status == status
    assert 'role="alert"' in answer.body
    assert not list((project / "instance" / "uploads").iterdir())


@pytest.mark.parametrize(
    "path", ["..%2fsecret_key", "%2e%2e/secret_key", "..%252fsecret_key", "..%5csecret_key", "..", "%00"]
)
def test_nothing_but_uploads_is_downloaded(port: int, path: str) -> None:
    assert ask(port, f"/tour/uploads/{path}").status in (308, 404)


def test_cookies_have_their_flags(port: int) -> None:
    for method, body in (("GET", None), ("POST", "biscuit=oat")):
        cookie = ask(port, "/tour/cookies", method, body, FORM).headers["set-cookie"]
        assert {"Secure", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))


def test_session_is_kept_and_a_tampered_one_ignored(port: int) -> None:
    cookie = ask(port, "/tour/session", "POST", "name=Ada+Lovelace", FORM).headers["set-cookie"].partition(";")[0]
    assert "Welcome back, Ada Lovelace!" in ask(port, "/tour/session", headers={"Cookie": cookie}).body

    name, _, value = cookie.partition("=")
    for wrong in (value[:-4] + "AAAA", "x" + value, value.partition(".")[0], ""):
        answer = ask(port, "/tour/session", headers={"Cookie": f"{name}={wrong}"})
        assert answer.status == 200
        assert "Welcome back, Ada" not in answer.body


def test_each_flash_is_shown_once(port: int) -> None:
    cookie = ask(port, "/tour/flash", "POST").headers["set-cookie"].partition(";")[0]
    answer = ask(port, "/tour/flash", headers={"Cookie": cookie})
    assert re.findall(r'class="flash flash-(\w+)"', answer.body) == ["message", "success", "warning", "error"]

    emptied = answer.headers["set-cookie"].partition(";")[0]
    assert 'class="flash' not in ask(port, "/tour/flash", headers={"Cookie": emptied}).body


def test_pages_are_timed_and_no_other(port: int) -> None:
    assert ask(port, "/tour/wsgi").headers["server-timing"].startswith("app;dur=")
    assert "server-timing" not in ask(port, "/").headers


def test_guestbook_keeps_a_line_until_it_is_deleted(port: int) -> None:
    line = urlencode({"name": "Ada Lovelace", "message": "Hello"})
    assert ask(port, "/tour/guestbook", "POST", line, FORM).status in (302, 303)
    page = ask(port, "/tour/guestbook").body
    assert "<strong>Ada Lovelace</strong>" in page

    (delete,) = re.findall(r'action="(/tour/guestbook/\d+/delete)"', page)
    assert ask(port, delete).status == 405
    assert ask(port, delete, "POST", headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    assert ask(port, delete, "POST").status in (302, 303)
    assert "Be the first to sign it" in ask(port, "/tour/guestbook").body


def test_every_form_is_refused_to_other_sites(port: int) -> None:
    forms = "methods form uploads uploads/x/delete cookies session session/sign-out flash guestbook guestbook/1/delete"
    for path in [*forms.split(), "api/people"]:
        assert ask(port, f"/tour/{path}", "POST", "", {"Origin": "https://evil.example"}).status == 403


def test_nothing_typed_is_reflected_as_markup(port: int) -> None:
    typed = urlencode({"q": HOSTILE, "name": HOSTILE, "word": HOSTILE, "message": HOSTILE, "page": HOSTILE})
    quoted = HOSTILE.replace("<", "%3C").replace(">", "%3E").replace(" ", "%20").replace('"', "%22").replace("/", "%2F")
    answers = [ask(port, f"/tour/{path}?{typed}") for path in ("", "wsgi", "search", "context", "guestbook", "running")]
    answers += [ask(port, f"/tour/rules/path/{quoted}"), ask(port, f"/tour/hello/{quoted}")]
    answers += [ask(port, f"/tour/{path}", "POST", typed, FORM) for path in ("methods", "form", "cookies", "uploads")]
    sent = ask(port, "/tour/session", "POST", typed, FORM)
    answers += [ask(port, "/tour/session", headers={"Cookie": sent.headers["set-cookie"].partition(";")[0]})]
    ask(port, "/tour/guestbook", "POST", typed, FORM)
    answers += [ask(port, "/tour/guestbook")]

    for answer in answers:
        for tag in ("<script", "<img", "1337"):
            assert tag not in answer.body
    assert sum("&lt;script&gt;" in answer.body for answer in answers) >= 6
    ask(port, "/tour/guestbook/1/delete", "POST")


def walk(port: int) -> Iterator[tuple[str, str]]:
    """Each page of the tour by its links to the next."""
    path = "/tour/"
    while path:
        answer = ask(port, path)
        yield path, answer.body or ask(port, answer.headers["location"]).body
        page = answer.body if answer.status == 200 else ask(port, answer.headers["location"]).body
        path = "".join(re.findall(r'href="([^"]*)" rel="next"', page))


def test_pages_hold_no_script_no_style_and_no_secret(port: int, project: Path) -> None:
    pages = dict(walk(port))

    assert len(pages) == 21
    for path, page in pages.items():
        assert not re.search(r"<script|<style|\sstyle=\"|\son\w+=\"", page), path
        for secret in (SECRET, "swordfish", str(project), str(project.parent), os.environ["PATH"]):
            assert secret not in page, path


def test_client_behind_a_proxy_is_corrected(questionnaire: Questionnaire, tmp_path: Path) -> None:
    folder = tmp_path / "myapp"
    questionnaire.write(folder, proxy_fix=True, database="none")
    run("uv", "sync", cwd=folder)
    forwarded = {
        "X-Forwarded-For": "198.51.100.66, 203.0.113.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "shop.example.com",
    }

    with serving(folder, *GUNICORN, FLASK_SECRET_KEY=SECRET) as port:
        page = ask(port, "/tour/middleware", headers=forwarded).body
        assert ask(port, "/tour/guestbook").status == 404
        assert len(dict(walk(port))) == 20

    for value in ("203.0.113.7", "https", "shop.example.com"):
        assert f"<dd>{value}</dd>" in page
    assert "198.51.100.66" not in page


def files(project: Path) -> dict[str, str]:
    """What git keeps, but for the answers."""
    names = run("git", "ls-files", cwd=project).stdout.split()
    return {name: (project / name).read_text() for name in names if name != ".copier-answers.yml"}


def committed(project: Path) -> Path:
    """The project as a repository."""
    run("git", "init", "-q", cwd=project)
    run("git", "add", "-A", cwd=project)
    run("git", "commit", "-qm", "Start", cwd=project)
    return project


@pytest.mark.parametrize("database", [pytest.param("none", marks=pytest.mark.slow), "sqlite"])
def test_switching_off_leaves_no_trace_and_switching_on_brings_it_back(render: Render, database: str) -> None:
    project = committed(render("with/myapp", database=database))
    other = {True: files(project), False: files(committed(render("without/myapp", database=database, tour=False)))}

    for tour in (False, True):
        copier.run_update(
            project, data={"tour": tour}, defaults=True, unsafe=True, overwrite=True, quiet=True, skip_tasks=True
        )
        run("git", "add", "-A", cwd=project)
        run("git", "commit", "-qm", "Update", cwd=project)
        assert files(project) == other[tour]


@pytest.mark.slow
def test_owner_s_migrations_live_on_without_the_tour(render: Render) -> None:
    """The commands are those of the README."""
    project = render()
    commands = project / ".venv" / "bin"
    models = project / "src" / "myapp" / "models.py"
    imports = "from sqlalchemy.orm import DeclarativeBase"
    models.write_text(
        models.read_text().replace(imports, f"{imports}, Mapped, mapped_column")
        + '\n\nclass Note(Base):\n    """A note."""\n\n    __tablename__ = "note"\n\n'
        "    id: Mapped[int] = mapped_column(primary_key=True)\n"
    )
    run("uv", "sync", cwd=project)
    for words in (("upgrade",), ("migrate", "-m", "Add notes"), ("upgrade",)):
        run(commands / "flask", "db", *words, cwd=project)
    readme = (committed(project) / "README.md").read_text()

    copier.run_update(
        project, data={"tour": False}, defaults=True, unsafe=True, overwrite=True, quiet=True, skip_tasks=True
    )
    for command in re.findall(r"^git restore .*|^uv run flask db .*", readme.partition("tour=false")[2], re.MULTILINE):
        run(*shlex.split(command, comments=True), cwd=project)

    (removal,) = (project / "migrations" / "versions").glob("*remove_the_guestbook.py")
    assert "drop_table" in removal.read_text()
    run(commands / "flask", "db", "check", cwd=project)
    run(commands / "python", "-m", "pytest", "-q", "tests/test_database.py", cwd=project)
