"""The Pythons that projects are made for: the choices in ``copier.yml``, which everything else reads."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from conftest import PYTHONS, ROOT, run
from questionnaire import Questionnaire

ADD = "add it to the choices of python_version in copier.yml, as CONTRIBUTING.md says"
PROOF = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def unlisted(pythons: list[dict[str, Any]]) -> set[str]:
    """Return the releases of CPython in the output of ``uv python list`` that are not choices.

    Pre-releases and Pythons older than the first choice do not count.
    """
    versions = [python["version"].split(".") for python in pythons if python["implementation"] == "cpython"]
    oldest = int(PYTHONS[0].split(".")[1])
    minors = {int(minor) for _major, minor, patch in versions if patch.isdecimal()}
    return {f"3.{minor}" for minor in minors if minor >= oldest} - set(PYTHONS)


@pytest.fixture(scope="module")
def listed() -> list[dict[str, Any]]:
    """Return every Python that uv can install or finds on this machine, from the list that is built into uv."""
    command = ("uv", "python", "list", "--offline", "--all-versions", "--output-format=json")
    # Without standard error, where uv warns about broken shims of pyenv.
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return list(json.loads(found.stdout))


def test_newest_python_that_uv_installs_is_a_choice(listed: list[dict[str, Any]]) -> None:
    downloads = [python for python in listed if python["url"]]

    assert downloads, "uv lists nothing to download"
    assert not (missing := unlisted(downloads)), f"Python {', '.join(missing)} is out: {ADD}"


def test_each_python_on_this_machine_is_a_choice(listed: list[dict[str, Any]]) -> None:
    here = [python for python in listed if python["path"]]

    assert here, "uv does not find the Python that runs this test"
    assert not (missing := unlisted(here)), f"Python {', '.join(missing)} is installed here: {ADD}"


def test_prereleases_and_other_implementations_are_not_missed() -> None:
    minor = int(PYTHONS[-1].split(".")[1])

    def missed(version: str, implementation: str = "cpython") -> set[str]:
        return unlisted([{"version": version, "implementation": implementation}])

    assert missed(f"3.{minor + 1}.0") == {f"3.{minor + 1}"}
    assert missed(f"3.{minor + 1}.0a2") == missed(f"3.{minor + 1}.0rc1") == set()
    assert missed(f"3.{minor + 1}.0", "pypy") == set()
    assert missed(f"3.{minor}.7") == missed("3.10.20") == set()


def test_choices_are_in_order_without_a_gap() -> None:
    """The first is the oldest and the last is the newest wherever the list is read."""
    oldest, newest = (int(PYTHONS[place].split(".")[1]) for place in (0, -1))

    assert [f"3.{minor}" for minor in range(oldest, newest + 1)] == PYTHONS


def test_this_repository_runs_on_each_choice() -> None:
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert metadata["project"]["requires-python"] == f">={PYTHONS[0]}"
    assert f"You need Python {PYTHONS[0]} or newer" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_no_workflow_or_script_names_a_version() -> None:
    """They read copier.yml, so that a new choice is tested everywhere."""
    for file in [*(ROOT / ".github").rglob("*.yml"), *(ROOT / ".ci").iterdir()]:
        text = file.read_text(encoding="utf-8").replace("DOCKER_PYTHON=3.12", "")
        assert re.findall(r"(?<![\w.])3\.[1-9]\d\b(?!\.\d)", text) == [], file.name


def test_image_has_the_newest_python(questionnaire: Questionnaire) -> None:
    for oldest in PYTHONS:
        dockerfile = questionnaire.files(python_version=oldest)["Dockerfile"]
        assert f"ARG PYTHON_VERSION={PYTHONS[-1]}\n" in dockerfile
        assert "syntax=" not in dockerfile


@pytest.mark.parametrize("version", PYTHONS)
def test_doctor_knows_when_the_fixes_end(version: str, questionnaire: Questionnaire) -> None:
    """Security fixes end in the October five years after the release (PEP 602)."""
    doctor = questionnaire.files()["src/myapp/doctor.py"]

    assert f'"{version}": {2016 + int(version.split(".")[1])}' in doctor


def test_environment_is_made_with_any_python_that_is_new_enough() -> None:
    """A Python that is newer than the choices works without a release of the template."""
    names = []

    class Report:
        def run(self, name: str, *_options: str) -> subprocess.CompletedProcess[str]:
            names.append(name)
            return subprocess.CompletedProcess(name, 1)

    runpy.run_path(str(ROOT / "hooks" / "stages.py"))["find_python"](Report(), PYTHONS[0])

    newer = f"3.{int(PYTHONS[-1].split('.')[1]) + 1}"
    assert {f"python{version}" for version in [*PYTHONS, newer]} < set(names)


# ── .ci/run ────────────────────────────────────────────────────────────────────────────────────────────────────────


def block(start: str, end: str) -> str:
    """Return the lines of .ci/run from one to another."""
    found = re.search(rf"^{re.escape(start)}\n(?s:.*?)^{end}\n", PROOF, re.MULTILINE)
    assert found, f"{start} … {end}"
    return found[0]


bash = pytest.mark.skipif(sys.platform == "win32" or not shutil.which("bash"), reason=".ci/run needs bash")
FUNCTIONS = "\n".join(re.findall(r"^(?:say|pythons)\(\) .+$", PROOF, re.MULTILINE))


@bash
def test_proof_reads_the_choices() -> None:
    assert run("bash", "-euc", f"{FUNCTIONS}\npythons", cwd=ROOT).stdout.split() == PYTHONS


@bash
@pytest.mark.parametrize("downloads", [True, False], ids=["uv has it", "uv lacks it"])
def test_proof_reports_each_python_that_it_lacks(tmp_path: Path, downloads: bool) -> None:
    def script(name: str, *lines: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(("#!/bin/sh", *lines, "")))
        file.chmod(0o755)

    # Four future versions: on PATH, from Debian, from pyenv, and from uv or nowhere.
    choices = 'python_version:\n  choices: ["3.96", "3.97", "3.98", "3.99"]\n  default: "3.96"\n'
    (tmp_path / "copier.yml").write_text(choices)
    script("bin/python3.96")
    script(".ci/debian-python", 'test "$1" = 3.97')
    script("shims/python3.98")
    script("checkout/flask-starter/.venv/bin/uv", 'echo "$@"', f"exit {int(not downloads)}")
    lines = [
        FUNCTIONS,
        block("missing=", "done"),
        block("uv=$work/checkout/flask-starter/.venv/bin/uv", "done"),
        block('if [ -n "$absent" ]; then', "fi"),
        'echo "$PATH"',
    ]
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env: dict[str, Any] = {"PATH": path, "work": str(tmp_path), "shims": str(tmp_path / "shims")}

    printed = run("bash", "-euo", "pipefail", "-c", "\n".join(lines), cwd=tmp_path, **env).stdout

    assert "3.96" not in printed
    assert "Debian does not offer Python 3.98 here: pyenv does" in printed
    assert "python install 3.99\n" in printed
    assert ("INCOMPLETE: no test ran on Python 3.99" in printed) is not downloads
    assert printed.endswith(f":{tmp_path}/python3.97/bin\n")
