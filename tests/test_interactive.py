"""The questions as a person meets them: typed into a real terminal of the usual size."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import PYTHONS, QUESTIONS
from questionnaire import Questionnaire

if sys.platform == "win32":
    pytest.skip("pexpect needs a pseudo-terminal, which Windows lacks", allow_module_level=True)
pexpect = pytest.importorskip("pexpect")

ENTER, DOWN, UP, CLEAR, CTRL_C = "\r", "\x1b[B", "\x1b[A", "\x15", "\x03"
Start = Callable[..., Any]
Whole = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def start(template: Path, tmp_path: Path) -> Iterator[Start]:
    """Type ``copier copy`` into a terminal: ``start("--skip-tasks")``."""
    started = []

    def start(*options: str) -> Any:
        terminal = pexpect.spawn(
            sys.executable,
            ["-m", "copier", "copy", "--trust", *options, str(template), "myapp"],
            cwd=tmp_path,
            env={**os.environ, "PWD": str(tmp_path), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            dimensions=(24, 80),
            encoding="utf-8",
            timeout=60,
        )
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        terminal.close(force=True)


def wait_for(terminal: Any, name: str) -> None:
    """Wait until a question is asked."""
    terminal.expect_exact(QUESTIONS[name]["help"].splitlines()[0])


def finish(terminal: Any) -> tuple[int, str]:
    """Wait for the end; the exit status, and what was printed since the last wait."""
    terminal.expect(pexpect.EOF)
    terminal.close()
    return terminal.exitstatus, terminal.before


def answers(folder: Path) -> dict[str, Any]:
    """The answers that were written."""
    written = yaml.safe_load((folder / "myapp" / ".copier-answers.yml").read_text(encoding="utf-8"))
    return {name: written[name] for name in QUESTIONS}


@pytest.fixture
def whole(questionnaire: Questionnaire) -> Whole:
    """Add to some answers the default of each question that they leave out."""
    defaults = questionnaire.answer()
    return lambda answers: {name: answers.get(name, defaults[name]) for name in QUESTIONS}


def test_enter_takes_every_default_and_nothing_else_is_asked(start: Start, whole: Whole, tmp_path: Path) -> None:
    terminal = start("--skip-tasks")
    for name in QUESTIONS:
        wait_for(terminal, name)
        terminal.send(ENTER)
    status, _printed = finish(terminal)

    assert status == 0
    assert answers(tmp_path) == whole(
        {
            "project_name": "Myapp",
            "package_name": "myapp",
            "description": "A web application made with Flask.",
            "user_name": "",
            "user_email": "",
            "license": "none",
            "python_version": "3.11",
            "database": "sqlite",
            "proxy_fix": False,
            "docker": True,
            "ci": "github",
            "tour": True,
            "git": True,
        }
    )


def test_typed_answers_arrive(start: Start, whole: Whole, tmp_path: Path) -> None:
    """The package's name is offered after the project's; arrows choose from a list; one key says yes or no."""
    typed = {
        "project_name": CLEAR + "Ada's “Shop” 👍" + ENTER,
        "package_name": CLEAR + "shop" + ENTER,
        "description": CLEAR + 'Sells "engines", {{ slowly }}.' + ENTER,
        "user_name": "Ada Lovelace" + ENTER,
        "user_email": "ada@example.com" + ENTER,
        "license": DOWN + DOWN + UP + ENTER,
        "python_version": UP + ENTER,
        "database": DOWN + ENTER,
        "proxy_fix": "y",
        "docker": "n",
        "ci": DOWN + ENTER,
        "tour": "n",
        "git": "n",
    }
    terminal = start("--skip-tasks")
    for name in QUESTIONS:
        wait_for(terminal, name)
        terminal.send(typed.get(name, ENTER))
    status, _printed = finish(terminal)

    assert status == 0
    assert answers(tmp_path) == whole(
        {
            "project_name": "Ada's “Shop” 👍",
            "package_name": "shop",
            "description": 'Sells "engines", {{ slowly }}.',
            "user_name": "Ada Lovelace",
            "user_email": "ada@example.com",
            "license": "MIT",
            "python_version": PYTHONS[-1],
            "database": "postgresql",
            "proxy_fix": True,
            "docker": False,
            "ci": "gitlab",
            "tour": False,
            "git": False,
        }
    )


def test_bad_answer_is_explained_in_place_and_mended(start: Start, tmp_path: Path) -> None:
    bad = {
        "project_name": ("", "Blank: type one, such as My App."),
        "package_name": ("flask", "Try flask_app: yours would hide"),
        "description": ("", "Empty: say in short what it is."),
        "user_name": ("x" * 81, "81 characters: shorten it to 80."),
        "user_email": ("ada", "Not an e-mail: try ada@example.com."),
    }
    good = {
        "project_name": "Engines",
        "package_name": "flask_app",
        "description": "Sells engines.",
        "user_name": "Ada Lovelace",
        "user_email": "ada@example.com",
    }
    terminal = start("--skip-tasks")
    for name in QUESTIONS:
        wait_for(terminal, name)
        if name in bad:
            text, sentence = bad[name]
            terminal.send(CLEAR + text + ENTER)
            terminal.expect_exact(sentence)
            terminal.send(CLEAR + good[name])
        terminal.send(ENTER)
    status, _printed = finish(terminal)

    assert status == 0
    assert answers(tmp_path).items() >= good.items()


@pytest.mark.parametrize("name", ["project_name", "license", "git"])
def test_ctrl_c_leaves_nothing_behind(name: str, start: Start, tmp_path: Path) -> None:
    """At a text, a list, and the last question."""
    terminal = start()
    for earlier in list(QUESTIONS)[: list(QUESTIONS).index(name)]:
        wait_for(terminal, earlier)
        terminal.send(ENTER)
    wait_for(terminal, name)
    terminal.send(CTRL_C)
    status, printed = finish(terminal)

    assert status
    assert "Execution stopped by user" in printed
    assert "Traceback" not in printed
    assert not list(tmp_path.iterdir())


def test_whole_flow_ends_with_green_tests_and_the_next_step(start: Start, tmp_path: Path) -> None:
    terminal = start()
    for name in QUESTIONS:
        wait_for(terminal, name)
        terminal.send(ENTER)
    terminal.expect(r"environment .*installed")
    terminal.expect(r"tests .*\d+ passed in")
    terminal.expect(r"git .*first commit [0-9a-f]+")
    status, printed = finish(terminal)

    assert status == 0
    assert "cd myapp" in printed
    assert "flask run --debug" in printed
    assert (tmp_path / "myapp" / ".git").is_dir()
