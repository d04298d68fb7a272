"""What the template writes is well-formed and clean, and holds nothing of an option that is off."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import copier
import jinja2
import pytest
import yaml
from conftest import COUNTABLE, Render, describe, every_pair, run

# The words that would betray an option which is off. A choice is off where another was made.
TRACES = {
    ("database", "none"): r"sql|migrat|alembic|\bdb\b",
    ("database", "sqlite"): r"postgres|psycopg|mysql|mariadb|TEST_DATABASE_URL|DRIVERS",
    ("database", "postgresql"): r"mysql|mariadb",
    ("database", "mysql"): r"postgres|psycopg",
    ("proxy_fix", False): r"proxy_?fix|X-Forwarded|proxies",
    ("license", "none"): r"licen[cs]e =|## licence",
}
CASES = every_pair()


@pytest.fixture(scope="module", params=CASES, ids=describe)
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Answers: over all cases each pair of values of two questions is tried."""
    answers: dict[str, Any] = request.param
    return answers


@pytest.fixture(scope="module")
def project(case: dict[str, Any], template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that the answers make."""
    folder = tmp_path_factory.mktemp("files") / "myapp"
    copier.run_copy(str(template), folder, data=case, defaults=True, skip_tasks=True, quiet=True)
    return folder


def texts(project: Path, pattern: str = "*") -> Iterator[tuple[str, str]]:
    """The files of a project with their text; all are UTF-8."""
    for path in sorted(project.rglob(pattern)):
        if path.is_file():
            yield path.relative_to(project).as_posix(), path.read_bytes().decode()


def test_each_pair_of_answers_is_tried() -> None:
    tried = {(a, case[a], b, case[b]) for case in CASES for a in case for b in case if a < b}
    wanted = {(a, x, b, y) for a in COUNTABLE for b in COUNTABLE if a < b for x in COUNTABLE[a] for y in COUNTABLE[b]}

    assert tried == wanted


def test_python_compiles_on_the_oldest_python_that_is_promised(case: dict[str, Any], project: Path) -> None:
    version = (3, int(case["python_version"].partition(".")[2]))

    for name, text in texts(project, "*.py"):
        assert ast.parse(text, name, feature_version=version)


def test_toml_yaml_and_html_parse(project: Path) -> None:
    for _name, text in texts(project, "*.toml"):
        assert tomllib.loads(text)
    for _name, text in texts(project, "*.yml"):
        assert yaml.safe_load(text)
    for _name, text in texts(project, "*.html"):
        assert jinja2.Environment(autoescape=True).parse(text).body


def test_python_is_linted_and_formatted(project: Path) -> None:
    run("ruff", "check", "--no-cache", cwd=project)
    run("ruff", "format", "--no-cache", "--check", cwd=project)


def test_text_is_clean(project: Path) -> None:
    for name, text in texts(project):
        if name == "LICENSE" or not text:
            continue
        assert not re.search(r"\[\[|\[%|%\]|\[#", text), f"{name} shows a delimiter"
        assert not re.search(r"[ \t\r]$", text, re.MULTILINE), f"{name} has trailing blanks"
        assert text.endswith("\n"), f"{name} lacks its last newline"
        assert not text.endswith("\n\n"), f"{name} ends with blank lines"
        blank_lines = 2 if name.endswith((".py", ".mako")) else 1
        assert "\n" * (blank_lines + 2) not in text, f"{name} has too many blank lines"


def test_option_that_is_off_leaves_no_trace(case: dict[str, Any], project: Path) -> None:
    for (question, answer), words in TRACES.items():
        if case[question] != answer:
            continue
        for name, text in texts(project):
            # The answers file tells every answer, and a licence speaks of licences.
            if name in {".copier-answers.yml", "LICENSE"}:
                continue
            assert not (found := re.search(words, name, re.IGNORECASE)), f"{name}: {found}"
            assert not (found := re.search(words, text, re.IGNORECASE)), f"{name}: {found}"


def test_every_option_is_looked_for() -> None:
    """A question whose traces nobody knows would pass unnoticed."""
    known = {name for name, _answer in TRACES}
    harmless = {"git": "a repository, no file", "python_version": "a number in pyproject.toml"}

    assert known | harmless.keys() == COUNTABLE.keys()


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


def test_default_project_is_small(render: Render) -> None:
    assert len([path for path in render().rglob("*") if path.is_file()]) <= 46


def test_two_renders_are_the_same(render: Render) -> None:
    """No date, no random value: an update would bring it again as a conflict."""
    first, second = render("first/myapp"), render("second/myapp")

    assert dict(texts(first)) == dict(texts(second))
