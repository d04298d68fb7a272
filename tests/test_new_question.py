"""A question that nobody wrote a test for is proved like the others from the moment it is asked.

A throw-away one is put into a copy of this repository, with its room and its test in the template. No test is touched.
"""

import shutil
import sys
from pathlib import Path

import pytest
from conftest import COUNTABLE, ROOT, run, working_copy

QUESTION = """\
lighthouse:
  type: bool
  help: |-
    Add a lighthouse?
    A page that blinks.
  default: "[[ new_project ]]"
  validator: >-
    [%- if _copier_conf.data.lighthouse | default(lighthouse) | string | lower not in yes_and_no.split() -%]
    Neither yes nor no: type one.
    [%- endif -%]
"""
FILES = {
    "src/[[ package_name ]]/[% if lighthouse %]lighthouse.py[% endif %]": '''\
"""A page that blinks."""

from flask import Blueprint

bp = Blueprint("lighthouse", __name__)


@bp.get("/lighthouse")
def blink() -> str:
    """Blink once."""
    return "blink"
''',
    "tests/[% if lighthouse %]test_lighthouse.py[% endif %]": '''\
"""The page that blinks."""

from flask.testing import FlaskClient


def test_it_blinks(client: FlaskClient) -> None:
    assert client.get("/lighthouse").text == "blink"
''',
}
IMPORT = "[% if lighthouse %]\n    lighthouse,\n[% endif %]\n"
CALL = "[% if lighthouse %]\n    app.register_blueprint(lighthouse.bp)\n[% endif %]\n"
COUNT = "from proof import Figures; print(*Figures({}).possible().values())"
TESTS = "test_files.py", "test_questions.py", "test_updates.py", "test_pairs.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def asked(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository that asks one question more."""
    copy = tmp_path_factory.mktemp("asked") / "flask-starter"
    working_copy(template, copy)
    for name, text in FILES.items():
        (copy / "template" / name).write_text(text)
    factory = copy / "template/src/[[ package_name ]]/__init__.py.jinja"
    for file, before, added in (
        (copy / "copier.yml", "git:\n", QUESTION),
        (factory, "    limits,\n", IMPORT),
        (factory, "    app.register_blueprint(home.bp)\n", CALL),
    ):
        text = file.read_text()
        assert text.count(f"\n{before}") == 1
        file.write_text(text.replace(f"\n{before}", f"\n{added}{before}"))
    return copy


def prove(asked: Path, *options: str) -> tuple[int, str]:
    """Run tests of the copy, fast and slow ones; the exit status, and what they print."""
    alone = ("-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider")
    done = run(sys.executable, *alone, "-m", "slow or not slow", *options, cwd=asked, check=False)
    return done.returncode, done.stdout


def test_each_proof_counts_it(asked: Path) -> None:
    def counts(repository: Path) -> list[int]:
        tests = repository / "tests"
        return [int(number) for number in run(sys.executable, "-c", COUNT, cwd=tests).stdout.split()]

    (questions, combinations, pairs, projects, _faults), ours = counts(asked), counts(ROOT)

    assert questions == ours[0] + 1
    assert combinations == 2 * ours[1]
    assert pairs > ours[2]
    assert abs(projects - ours[3]) <= 2  # the arrays are not minimal: one more question may need one project less


def test_each_kind_of_test_takes_it_up(asked: Path) -> None:
    status, printed = prove(asked, "--collect-only", "-k", "lighthouse", *(f"tests/{name}" for name in TESTS))

    assert status == 0, printed
    assert {name for name in TESTS if f"tests/{name}::" in printed} == set(TESTS)
    assert printed.count("test_pairs.py::test_project_is_whole") >= len(COUNTABLE) * 2
    for promise in ("changed_answer_gives_a_fresh_project[lighthouse]", "owners_work_survives_a_changed_answer"):
        assert f"test_{promise}" in printed


@pytest.mark.parametrize(
    "tests",
    [
        ("tests/test_files.py", "-k", "pairs"),
        (
            "tests/test_questions.py",
            "tests/test_interactive.py",
            "-k",
            "lighthouse or takes_every_default or typed or good_answers",
        ),
        ("tests/test_updates.py", "-k", "lighthouse"),
        ("tests/test_pairs.py", "-k", "GPL and 3.11 and mysql"),
    ],
    ids=lambda tests: tests[0],
)
def test_it_passes(asked: Path, tests: tuple[str, ...]) -> None:
    status, printed = prove(asked, *tests)

    assert status == 0, printed


def test_trace_that_it_leaves_is_found(asked: Path, tmp_path: Path) -> None:
    """Its registry line, written whether it is on or off."""
    copy = shutil.copytree(asked, tmp_path / "flask-starter")
    factory = copy / "template/src/[[ package_name ]]/__init__.py.jinja"
    factory.write_text(factory.read_text().replace(CALL, "    # app.register_blueprint(lighthouse.bp)\n"))

    status, printed = prove(copy, "tests/test_files.py", "-k", "no_trace and pairs and lighthouse")

    assert status == 1
    assert "src/myapp/__init__.py shows" in printed
