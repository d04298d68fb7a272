"""Each pair of answers is installed, and all that an owner would look at holds.

The cases are computed from ``copier.yml``: a question that nobody wrote a test for is tried with each answer of each
other question. Texts come from the corpus of hostile ones. A worker makes one project after the other in the same
folder, so that each finds its packages installed; ``uv sync`` removes what a project does not ask for. What Python
compiled stays beside the folder: most files, and the packages that come again, are those of a project before.
"""

import os
import re
import secrets
import shutil
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from zlib import crc32

import pytest
import tinycss2
from conftest import COUNTABLE, OFF, ON, QUICK, describe, every_pair, has_python, run
from justhtml import JustHTML
from questionnaire import Questionnaire
from test_hostile import FREE_TEXT, TEXTS, taken
from test_server import get, serving
from test_suites import BIN, SERVERS, empty_database, install

# Those of one Python stand together: the environment is made anew for each.
CASES = sorted(every_pair(), key=lambda case: COUNTABLE["python_version"].index(case["python_version"]))
# The least and the most soon, the others in the longer proof.
FIRST = [OFF, ON]
# Code that is no less alive for being named nowhere: Flask calls views, and others read these names.
REGISTERED = (
    "pytest.fixture",
    "*.get",
    "*.post",
    "*.route",
    "*.before_request",
    "*.after_request",
    "*.errorhandler",
    "*.url_defaults",
)
READ_BY_NAME = (
    "request_class",
    "response_class",
    "session_interface",
    "signer",
    "wait",
    "form_data_parser_class",
    "permanent",
    "max_content_length",
    "max_identifier_length",
    "raw",
    "tries",
    "commands",
)
DEAD_CODE = (
    *("--ignore-decorators", ",".join(f"@{name}" for name in REGISTERED)),
    *("--ignore-names", ",".join((*READ_BY_NAME, "set_visited", "secret_key"))),
)
# Flask's own parts come with Flask; a database's driver is named in its address alone.
DEPENDENCIES = ("--ignore", "DEP003", "--per-rule-ignores", "DEP002=psycopg|pymysql")
# What an owner does not look at: the packages that are asked for but not used, code that is dead, words misspelt.
LOOKS = (
    ("uv", "run", "--no-sync", "--with", "deptry", "deptry", ".", *DEPENDENCIES),
    ("vulture", *DEAD_CODE, "src", "tests"),
    ("codespell", "--skip", ".venv,.git,*.lock,LICENSE,.copier-answers.yml"),
)
# Commands of Flask, one after the other in one process: half of the time of each is for imports.
FLASK = "import sys; from flask.cli import cli; [cli(line.split(), standalone_mode=False) for line in sys.argv[1:]]"
# The tour shows refusals and errors, and leads to them.
MEANT = re.compile(r"/tour/(abort/\d+|about/|api/people/0|rules/.+)")


def texts(number: int, questionnaire: Questionnaire) -> dict[str, str]:
    """Hostile texts for a case, or the default where one is refused; the package keeps its name."""
    typed = {name: TEXTS[(number * len(FREE_TEXT) + n) % len(TEXTS)] for n, name in enumerate(FREE_TEXT)}
    answers = taken(questionnaire, typed | {"package_name": "myapp"})
    return {name: answers[name] for name in FREE_TEXT}


class Parts(defaultdict[str, float]):
    """The parts of a case, with the seconds of one core that each takes."""

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Time a block, and every process that ends in it."""
        start = sum(os.times()[:4])
        yield
        self[part] += sum(os.times()[:4]) - start


@pytest.fixture
def parts() -> Parts:
    return Parts(float)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this worker makes its projects: a folder whose name trips whoever forgets its quotes."""
    return tmp_path_factory.mktemp("pairs") / "Ada's “café” app"


@pytest.fixture
def project(
    answers: dict[str, Any],
    place: Path,
    questionnaire: Questionnaire,
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A project with these answers and nothing of the one before but the packages and what is compiled."""
    version = answers["python_version"]
    if not has_python(version):
        pytest.skip(f"no Python {version} on this machine")
    for path in place.glob("*"):
        if path.name != ".venv":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(place.with_name("bytecode")))
    with parts.timed("render"):
        questionnaire.write(place, **answers, **texts(CASES.index(answers), questionnaire))
        for path in (*place.glob("src/**/*.py"), *place.glob("tests/**/*.py")):
            made = crc32(path.read_bytes()) % 10**9  # Python looks at the time to see whether it compiled this
            os.utime(path, (made, made))
    with parts.timed("install"):
        install(place, "--python", version, "--quiet")
    return place


@pytest.fixture
def database(answers: dict[str, Any]) -> Iterator[str]:
    """The address of an empty database for the running app."""
    kind = answers["database"]
    with empty_database(kind) if kind in SERVERS else nullcontext("") as url:
        yield url


def crawl(visit: Callable[[str], tuple[int, str, str]]) -> dict[str, int]:
    """Follow every link from the home page; each page is HTML without an error, each stylesheet parses."""
    seen: dict[str, int] = {}
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        status, kind, body = visit(path)
        seen[path] = status
        if kind.startswith("text/css"):
            assert not [rule for rule in tinycss2.parse_stylesheet(body) if rule.type == "error"], path
        if not kind.startswith("text/html") or "<html" not in body:
            continue
        page = JustHTML(body, strict=True, sanitize=False)
        ids = {(node.attrs or {})["id"] for node in page.query("[id]")}
        for node in page.query("a[href], link[href], img[src], form[action]:not([method=post])"):
            attributes = node.attrs or {}
            address = next(filter(None, map(attributes.get, ("href", "src", "action"))))
            target = urlsplit(urljoin(f"http://app{path}", address))
            if target.netloc == "app":
                assert not target.fragment or target.path != urlsplit(path).path or target.fragment in ids, path
                waiting.append(target.path + (f"?{target.query}" if target.query else ""))
    return seen


@pytest.mark.skipif(sys.platform == "win32", reason="the server is gunicorn")
@pytest.mark.parametrize(
    "answers",
    [pytest.param(case, marks=[] if case in FIRST else pytest.mark.slow) for case in CASES],
    ids=describe,
)
def test_project_is_whole(
    answers: dict[str, Any], project: Path, database: str, parts: Parts, record_property: Any
) -> None:
    """Its own checks pass, it says what it needs, it runs, and every page that it links to is there."""
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    for command in metadata["tool"]["poe"]["tasks"]["check"]["sequence"]:
        name, *options = command.split()
        with parts.timed("suite" if name == "coverage" else "lint"):
            run(project / BIN / name, *options, cwd=project, **QUICK)
    with parts.timed("lint"):
        for command in LOOKS:
            run(*command, cwd=project)

    settings: dict[str, Any] = {
        "FLASK_SECRET_KEY": secrets.token_hex(),
        "FLASK_TRUSTED_HOSTS": "127.0.0.1",
        "DATABASE_URL": database,
    }
    with parts.timed("serve"):
        commands = ["doctor --port=0"] if answers["database"] == "none" else ["db upgrade", "doctor --port=0"]
        done = run(project / BIN / "python", "-c", FLASK, *commands, cwd=project, **settings)
        assert re.fullmatch(r'(\{.*"INFO", .*"logger": "alembic\..*\}\n)*ready\n', done.stdout)
        with serving(project, "gunicorn", "--bind=127.0.0.1:{port}", **settings) as port:

            def visit(path: str) -> tuple[int, str, str]:
                response, body = get(port, path)
                return response.status, response.headers["Content-Type"], body

            seen = crawl(visit)
    assert {path for path, status in seen.items() if status >= 400 and not MEANT.fullmatch(path)} == set()
    record_property("case", answers)
    record_property("parts", dict(parts))
