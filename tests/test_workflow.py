"""The workflow that proves this repository elsewhere is real: its commands run, and it is given nothing to spare."""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from conftest import COUNTABLE, ROOT, run

FILE = ROOT / ".github" / "workflows" / "ci.yml"
TEXT = FILE.read_text(encoding="utf-8")
WORKFLOW: dict[Any, Any] = yaml.safe_load(TEXT)
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]
STEPS: list[dict[str, Any]] = [step for job in JOBS.values() for step in job["steps"]]
# What expressions stand for on the machine at hand: this very Python.
HERE = {"${{ matrix.python }}": f"{sys.version_info.major}.{sys.version_info.minor}"}


def variables(job: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    """The variables that a step sees."""
    merged = {**WORKFLOW.get("env", {}), **job.get("env", {}), **step.get("env", {})}
    return {name: HERE.get(value, value) for name, value in merged.items()}


# Each command once: jobs that differ by system or Python alone repeat them.
COMMANDS = {
    step["run"]: variables(job, step)
    for job in JOBS.values()
    for step in job["steps"]
    if "run" in step and job["runs-on"] == "ubuntu-latest"
}


@pytest.mark.skipif(sys.platform == "win32", reason="the steps are those of a Linux runner")
@pytest.mark.parametrize("command", COMMANDS)
def test_step_runs(command: str, tmp_path: Path) -> None:
    """Run it as a Linux runner would, in this environment; of pytest, only as far as collecting the tests."""
    uv = shutil.which("uv") or shutil.which("uv", path=Path(sys.executable).parent)
    assert uv, "uv is not installed"
    assert "${{" not in command, "an expression in a command lets a title or a branch name run code: use a variable"
    script = tmp_path / "step.sh"
    script.write_text(command)

    run(
        *("bash", "--noprofile", "--norc", "-eu", script),
        cwd=ROOT,
        PATH=f"{Path(uv).parent}{os.pathsep}{os.environ['PATH']}",
        PYTEST_ADDOPTS="--collect-only --quiet --no-header",
        UV_NO_SYNC="1",
        UV_PROJECT_ENVIRONMENT=sys.prefix,
        **COMMANDS[command],
    )


def test_no_command_is_left_out() -> None:
    commands = [step["run"] for step in STEPS if "run" in step]

    assert sorted(set(commands)) == sorted(COMMANDS), "a command that only other systems run is tried nowhere"
    assert all(value not in (None, "") and "${{" not in value for env in COMMANDS.values() for value in env.values())


def test_proof_is_that_of_one_machine() -> None:
    proof = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    # Its `uv run pytest` is the README's.
    there = {"uv run pytest", *re.findall(r"^[^#\n]*?(uv run .+)$", proof, re.MULTILINE)}

    assert {command.replace(' --python "$PYTHON"', "") for command in COMMANDS} == there
    assert {name for name in JOBS["linux"]["env"] if "REQUIRE_" in name} == set(re.findall(r"\bREQUIRE_\w+", proof))


def test_pythons_are_those_a_project_may_ask_for() -> None:
    supported = COUNTABLE["python_version"]

    assert JOBS["linux"]["strategy"]["matrix"]["python"] == supported
    assert JOBS["elsewhere"]["strategy"]["matrix"]["python"] == [supported[0], supported[-1]]


@pytest.mark.parametrize(
    ("variable", "service", "user", "password", "database"),
    [
        ("TEST_POSTGRESQL_URL", "postgresql", None, "POSTGRES_PASSWORD", "POSTGRES_DB"),
        ("TEST_MYSQL_URL", "mariadb", "root", "MARIADB_ROOT_PASSWORD", "MARIADB_DATABASE"),
    ],
)
def test_address_is_that_of_the_service(
    variable: str, service: str, user: str | None, password: str, database: str
) -> None:
    address = urlsplit(JOBS["linux"]["env"][variable])
    server = JOBS["linux"]["services"][service]

    assert server["ports"] == [f"{address.port}:{address.port}"]
    assert (address.hostname, address.username) == ("127.0.0.1", user or "postgres")
    assert (address.password, address.path) == (server["env"][password], f"/{server['env'][database]}")
    assert "--health-cmd" in server["options"]


def test_actions_are_pinned_to_a_commit_and_name_its_version() -> None:
    uses = re.findall(r"uses:(.*)", TEXT)

    assert len(uses) == sum("uses" in step for step in STEPS)
    for line in uses:
        assert re.fullmatch(r" [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)
    assert len(set(uses)) == len({line.partition("@")[0] for line in uses}), "an action is pinned to two commits"


def test_jobs_get_no_more_than_they_need() -> None:
    # YAML 1.1 reads the key `on` as a truth value.
    assert WORKFLOW[True].keys() == {"push", "pull_request", "schedule", "workflow_dispatch"}
    assert WORKFLOW["permissions"] == {}
    assert "secrets." not in TEXT
    for job in JOBS.values():
        assert job["permissions"] == {"contents": "read"}
        assert job["timeout-minutes"] <= 60
    for step in STEPS:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        if step.get("uses", "").startswith("astral-sh/setup-uv@"):
            assert step["with"]["enable-cache"] is False


def test_actions_are_kept_current_after_a_while() -> None:
    dependabot = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    (actions,) = (update for update in dependabot["updates"] if update["package-ecosystem"] == "github-actions")

    assert actions["directory"] == "/"
    assert actions["cooldown"]["default-days"] >= 7
