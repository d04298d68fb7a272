"""Text that breaks other templates arrives here unharmed in every language, or is refused in a sentence."""

import ast
import functools
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from email.utils import parseaddr
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from conftest import COUNTABLE, QUESTIONS, Render, run
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from questionnaire import REFUSAL, Questionnaire, shown

FREE_TEXT = sorted(QUESTIONS.keys() - COUNTABLE.keys())

TEXTS = [
    # quotes and backslashes
    "'",
    '"',
    '"\'"',
    "'\"'",
    "''' \"\"\"",
    "“Ada” ‘Lovelace’ «x» `y`",
    "O'Brien",
    "\\",
    "\\\\ \\",
    "C:\\new\\table",
    "\\'\\\"",
    "\\N{DASH} \\x00 \\u0041 \\1",
    # templates and format strings
    "{{ 7*7 }}",
    "{% raw %}",
    "{# x #}",
    "[[ 7*7 ]]",
    "[% if x %]",
    "[# x #]",
    "]] %] #]",
    "%(x)s %s %",
    "{0} {x!r} {",
    "${x} $x",
    # shells
    "$(touch x)",
    "`touch x`",
    "; touch x #",
    "| touch x",
    "&& touch x",
    "> x",
    "--help",
    "-rf",
    # HTML and Markdown
    "</title><script>alert(1)</script>",
    "<b>x</b> &amp; &#39; &copy",
    "<!-- x -->",
    "# x #",
    "## x",
    "*x* _x_ **x** ~~x~~",
    "`x`",
    "[x](y) ![x](y) [x]: y",
    "- x",
    "+ x",
    "1. x",
    "12) x",
    "> x",
    "| x | y |",
    "===",
    "---",
    "***",
    "```",
    "~~~",
    "<https://example.com>",
    "x  y",
    # TOML, YAML and Python
    "key: value",
    "x = 1",
    '"]',
    '"""',
    "]",
    "# x",
    "x # y",
    "!!python/object/apply:os.system ['touch x']",
    "&a *b",
    "*x",
    "@x",
    "? x",
    "yes",
    "null",
    "~",
    "1e3",
    "0x1f",
    "2026-01-01",
    "{a: b}",
    "[a, b]",
    "%TAG",
    "=",
    "# noqa",
    "# type: ignore",
    "# fmt: off",
    "# pragma: no cover",
    "SELECT * FROM x",
    "/tmp/x",
    "0.0.0.0",
    "password",
    # line breaks and what a terminal would obey
    "a\nb",
    "a\r\nb",
    "a\n[tool.x]\nb = 1",
    "a\n---\nb: c",
    "a\tb",
    "a\x0bb\x0cc",
    "a\x00b",
    "a\x1b[31mb",
    "a\x7fb",
    "a\x85b",
    "a\u2028b\u2029c",
    # Unicode
    "日本語 العربية हिन्दी",
    "e\u0301\u0302\u0303\u0304",
    "ﬁ ﬀ ǅ ß İ ı",
    "a\u00a0b\u3000c",
    "a\u200bb\u200cc\u200dd\u2060e",
    "\u200ea\u200f",
    "a\u202eb\u202cc",
    "a\u2066b\u2069c",
    "\ufeffa",
    "a\ufffeb\uffffc\ufffd",
    "a\ud800b",
    "a\udcffb",
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈",
    "😀" * 80,
    "\U0010ffff\ue000",
    "x" * 80,
    "\"'" * 40,
    "\\" * 80,
    "<" * 80,
]

# ── Where a text is looked for ──────────────────────────────────────────────────────────────────────────────────────


def heading_and_paragraph(markdown: str) -> list[str]:
    """The first heading and the first paragraph as they are read; markup in them is an error."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    assert [token.type for token in tokens[:6:3]] == ["heading_open", "paragraph_open"]
    read = []
    for token in tokens[1:6:3]:
        assert {child.type for child in token.children or []} == {"text"}
        read.append("".join(child.content for child in token.children or []))
    return read


def settings_module(files: dict[str, str]) -> str:
    """The module that tells the app its name."""
    (module,) = [text for path, text in files.items() if path.endswith("/settings.py")]
    return module


def app_name(module: str) -> Any:
    """What Python takes for the app's name."""
    (name,) = [node for node in ast.walk(ast.parse(module)) if getattr(node, "arg", None) == "APP_NAME"]
    assert isinstance(name, ast.keyword)
    return ast.literal_eval(name.value)


def page_description(files: dict[str, str]) -> Any:
    """What a browser takes for the description of each page."""
    (layout,) = [text for path, text in files.items() if path.endswith("/layout.html")]
    (line,) = [line for line in layout.splitlines() if '<meta name="description"' in line]
    page = Page(jinja2.Environment(autoescape=True).from_string(line).render())
    assert page.tags == ["meta"]
    assert page.texts in ([], ["    "])
    return page.attributes["content"]


def assert_carried(files: dict[str, str], answers: dict[str, str]) -> None:
    """Every text stands exactly in every file that holds it."""
    project = tomllib.loads(files["pyproject.toml"])["project"]
    owner = {"name": answers["user_name"], "email": answers["user_email"]}
    assert project["name"] == answers["package_name"].replace("_", "-")
    assert project["description"] == answers["description"]
    assert project.get("authors", [{}]) == [{key: value for key, value in owner.items() if value}]

    written = yaml.safe_load(files[".copier-answers.yml"])
    assert {name: written[name] for name in answers} == answers

    assert app_name(settings_module(files)) == answers["project_name"]
    assert page_description(files) == answers["description"]
    assert heading_and_paragraph(files["README.md"]) == [answers["project_name"], answers["description"]]

    holder = answers["user_name"] or f"The authors of {answers['project_name']}"
    assert files["LICENSE"].splitlines()[2] == f"Copyright (c) {holder}"


class Page(HTMLParser):
    """The tags and the texts of a page, as a browser takes them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


# ── How it gets there ───────────────────────────────────────────────────────────────────────────────────────────────


# Serves the home page with each settings module that comes in, one a line.
SERVER = """
import json, pathlib, sys
sys.path.insert(0, "src")
for line in sys.stdin:
    pathlib.Path("src/myapp/settings.py").write_text(json.loads(line), encoding="utf-8")
    for name in [name for name in sys.modules if name.split(".")[0] == "myapp"]:
        del sys.modules[name]
    from myapp import create_app
    page = create_app({"TESTING": True}).test_client().get("/")
    print(json.dumps(page.text), flush=True)
"""


@pytest.fixture(scope="session")
def visit(questionnaire: Questionnaire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Page]]:
    """The home page of the written app with another settings module: ``visit(code)``."""
    project = tmp_path_factory.mktemp("hostile") / "myapp"
    questionnaire.write(project, database="none")
    run("uv", "sync", "--quiet", "--no-install-project", "--no-dev", cwd=project)
    with subprocess.Popen(
        ["uv", "run", "--no-sync", "python", "-W", "error", "-c", SERVER],
        cwd=project,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as server:
        assert server.stdin
        assert server.stdout
        write, read = server.stdin, server.stdout

        @functools.cache
        def visit(code: str) -> Page:
            print(json.dumps(code), file=write, flush=True)
            return Page(json.loads(read.readline()))

        yield visit


def taken(questionnaire: Questionnaire, answers: dict[str, str]) -> dict[str, str]:
    """The answers as they are taken, with the default in place of each that is refused in a sentence."""
    kept: dict[str, str] = {"license": "MIT"}
    for name, text in answers.items():
        if sentence := questionnaire.refusal(**{name: text}):
            assert (match := REFUSAL.fullmatch(sentence))
            assert match[1] == name
        else:
            kept[name] = text
    context = questionnaire.answer(**kept)
    return {name: context[name] for name in (*FREE_TEXT, "license")}


def assert_served(questionnaire: Questionnaire, visit: Callable[[str], Page], answers: dict[str, str]) -> None:
    """The page shows the project's name wherever it belongs, and has no other tags than any page."""
    plain = visit(settings_module(questionnaire.files(project_name="My App")))
    page = visit(settings_module(questionnaire.files(**answers)))

    assert plain.texts.count("My App") == 3
    assert page.texts == [text.replace("My App", answers["project_name"]) for text in plain.texts]
    assert page.tags == plain.tags


def assert_clean(files: dict[str, str]) -> None:
    """Ruff finds nothing to mend in the Python files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            if name.endswith((".py", ".toml")):
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        # The files that no answer changes are not here, and ruff looks for a module to know whose it is.
        (package,) = Path(folder, "src").iterdir()
        own = f"lint.isort.known-first-party = ['{package.name}']"
        run("ruff", "check", "--no-cache", "--config", own, cwd=Path(folder))
        run("ruff", "format", "--no-cache", "--check", cwd=Path(folder))


# ── The promises ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", TEXTS, ids=shown)
def test_text_is_carried_exactly_or_refused(
    text: str, questionnaire: Questionnaire, visit: Callable[[str], Page]
) -> None:
    answers = taken(questionnaire, dict.fromkeys(FREE_TEXT, text))
    files = questionnaire.files(**answers)

    assert_carried(files, answers)
    if answers["project_name"] == text:
        assert_served(questionnaire, visit, answers)
        assert_clean(files)


PIECES = st.sampled_from([text for text in TEXTS if len(text) < 40]) | st.text(max_size=3)
ANY = (
    st.lists(PIECES, max_size=6).map("".join)
    | st.text("\"'\\`{}[]()<>%#$&*_~-+=|:;!?.,/@^ \n1a", max_size=90)
    | st.text(max_size=310)
)
ANSWERS = st.fixed_dictionaries(
    {
        "project_name": ANY,
        "description": ANY,
        "user_name": ANY,
        "user_email": ANY | st.emails(),
        "package_name": ANY | st.from_regex(r"[a-z][a-z0-9]{0,9}(_[a-z0-9]{1,9}){0,3}", fullmatch=True),
    }
)


def test_no_question_is_left_out(questionnaire: Questionnaire) -> None:
    assert FREE_TEXT == ["description", "package_name", "project_name", "user_email", "user_name"]


@given(answers=ANSWERS)
@settings(deadline=None, max_examples=100)
def test_any_answers_are_carried_exactly_or_refused(questionnaire: Questionnaire, answers: dict[str, str]) -> None:
    answers = taken(questionnaire, answers)

    assert_carried(questionnaire.files(**answers), answers)


@given(name=ANY)
@settings(deadline=None, max_examples=40)
def test_any_name_is_served_and_stays_clean_code(
    questionnaire: Questionnaire, visit: Callable[[str], Page], name: str
) -> None:
    answers = taken(questionnaire, {"project_name": name})

    assert_served(questionnaire, visit, answers)
    assert_clean(questionnaire.files(**answers))


WORST: dict[str, dict[str, Any]] = {
    "quotes": {
        "project_name": '"O\'Brien" \\ {{ 7*7 }} [[ x ]] [% y %] </title><script>',
        "description": '""" ] # x: y, %(a)s {0} \\N{DASH} \'q\' \\',
        "user_name": 'O\'Brien, "Ada" <x@example.com>; (Lovelace) \\',
        "user_email": "o'brien+{x}|`y`=?@example.com",
    },
    "scripts": {
        "project_name": "👩‍👩‍👧‍👦 e\u0301 日本語 العربية " + "😀" * 55,
        "package_name": "x" * 40,
        "description": "😀" * 300,
        "user_name": "李, 明",
        "proxy_fix": True,
    },
    "shell": {
        "project_name": '$(touch x) `touch x` ; touch x # %s & "',
        "description": "$(touch x)",
        "user_name": "$(touch x) `touch x`",
        "user_email": "`touch-x`$x@example.com",
        "database": "none",
    },
}


def test_what_is_tried_here_is_what_copier_writes(questionnaire: Questionnaire, render: Render) -> None:
    answers = {**WORST["quotes"], "license": "MIT"}
    project = render(**answers)

    for name, text in questionnaire.files(**answers).items():
        if name != ".copier-answers.yml":  # it says where the template is
            assert (project / name).read_bytes().decode() == text


@pytest.mark.slow
@pytest.mark.parametrize("case", WORST)
def test_worst_answers_make_a_whole_project(case: str, template: Path, tmp_path: Path) -> None:
    """With everything that a person's copy does, in a folder of such a name, and the suite green."""
    answers = {**WORST[case], "license": "BSD-3-Clause", "tour": False}
    (tmp_path / "answers.yml").write_text(yaml.safe_dump(answers), encoding="utf-8")
    command = (sys.executable, "-m", "copier", "copy", "--trust", "--defaults", "--data-file", "answers.yml")
    project = tmp_path / "it's $(touch x) {{ 7 }} [[ y ]] ü"

    printed = run(*command, template, project, cwd=tmp_path, CI="true").stdout

    assert "passed" in printed
    assert "first commit" in printed
    assert not list(tmp_path.rglob("x"))
    code = "import importlib.metadata as m, json, sys; print(json.dumps(m.metadata(sys.argv[1]).json))"
    package = yaml.safe_load((project / ".copier-answers.yml").read_text(encoding="utf-8"))["package_name"]
    metadata = json.loads(run("uv", "run", "--no-sync", "python", "-c", code, package, cwd=project).stdout)
    assert metadata["summary"] == answers["description"]
    if "user_email" in answers:
        assert parseaddr(metadata["author_email"]) == (answers["user_name"], answers["user_email"])
    else:
        assert metadata["author"] == answers["user_name"]
