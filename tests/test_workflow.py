"""The workflows that prove and release this repository are real: their commands run, and are given nothing to spare."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from conftest import PYTHONS, ROOT, VERSION, describe, run
from proof import Figures, state
from shards import shard

FILES = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / ".github" / "workflows").iterdir()}
TEXT = "\n".join(FILES.values())
WORKFLOWS: dict[str, dict[Any, Any]] = {name: yaml.safe_load(text) for name, text in FILES.items()}
JOBS: dict[str, dict[str, Any]] = WORKFLOWS["ci.yml"]["jobs"]
ALL_JOBS: list[dict[str, Any]] = [job for workflow in WORKFLOWS.values() for job in workflow["jobs"].values()]
STEPS: list[dict[str, Any]] = [step for job in ALL_JOBS for step in job.get("steps", [])]
# What expressions stand for on the machine at hand: this very Python, and some part of the tests.
HERE = {
    "${{ matrix.python }}": f"{sys.version_info.major}.{sys.version_info.minor}",
    "${{ matrix.tests }}": "slow",
    "${{ matrix.shard }}": "2/3",
    "${{ needs.matrix.outputs.pythons }}": " ".join(PYTHONS),
}
# What more than its code a job is given.
RIGHTS = {"Release": {"contents": "write"}, "Tell of a bad night": {"issues": "write"}}
linux = pytest.mark.skipif(sys.platform == "win32", reason="the steps are those of a Linux runner")


def variables(job: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    """The variables that a step sees."""
    merged = {**job.get("env", {}), **step.get("env", {})}
    return {name: HERE.get(value, value) for name, value in merged.items()}


# Each command of those that test something once: jobs that differ by system or Python repeat them.
INSTALL = "uv python install $PYTHONS"
COMMANDS = {
    step["run"]: variables(JOBS[name], step)
    for name in ("lint", "linux", "elsewhere")
    for step in JOBS[name]["steps"]
    if step.get("run", INSTALL) != INSTALL
}


def execute(command: str, folder: Path = ROOT, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a step as a Linux runner would, in this environment."""
    uv = shutil.which("uv") or shutil.which("uv", path=Path(sys.executable).parent)
    assert uv, "uv is not installed"
    assert "${{" not in command, "an expression in a command lets a title or a branch name run code: use a variable"
    return run(
        *("bash", "--noprofile", "--norc", "-e", "-c", command),
        cwd=folder,
        check=check,
        UV_NO_SYNC="1",
        UV_PROJECT_ENVIRONMENT=sys.prefix,
        MYPY_CACHE_DIR="",  # the one that belongs to this checkout
        **{"PATH": f"{Path(uv).parent}{os.pathsep}{os.environ['PATH']}", **env},
    )


def command(workflow: str, job: str, words: str) -> str:
    """The one command of a job that has these words."""
    steps = WORKFLOWS[workflow]["jobs"][job]["steps"]
    (found,) = (step["run"] for step in steps if words in step.get("run", ""))
    return str(found)


@linux
@pytest.mark.parametrize("command", COMMANDS)
def test_step_runs(command: str) -> None:
    """Of pytest, only as far as collecting the tests."""
    execute(command, PYTEST_ADDOPTS="--collect-only --quiet --no-header", **COMMANDS[command])


def test_no_command_is_left_out() -> None:
    commands = [step["run"] for step in STEPS if "run" in step]
    tested_below = [
        command("ci.yml", "matrix", "shards.py"),
        command("ci.yml", "proof", "RESULTS"),
        command("ci.yml", "proof", "proof.py"),
        command("nightly.yml", "tell", "gh issue"),
        command("release.yml", "release", "gh release"),
    ]

    assert sorted(set(commands)) == sorted([*COMMANDS, INSTALL, *tested_below]), "a command is tried nowhere"
    assert all(value not in (None, "") and "${{" not in value for env in COMMANDS.values() for value in env.values())


def test_proof_is_that_of_one_machine() -> None:
    proof = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    # Its `uv run pytest` is the README's.
    there = {"uv run pytest", *re.findall(r"^[^#\n]*?(uv run .+)$", proof, re.MULTILINE)}
    rows = ("", " -m slow")
    here = {
        line.replace(' --python "$PYTHON"', "").replace(' -m "$TESTS" --shard="$SHARD"', row)
        for line in COMMANDS
        for row in rows
    }
    required = {name for name in JOBS["linux"]["env"] if "REQUIRE_" in name}

    assert here == there
    # No shard has the whole proof: the last job adds up what they have.
    assert required | {"REQUIRE_PROOF"} == set(re.findall(r"\bREQUIRE_\w+", proof))


# ── The matrix ─────────────────────────────────────────────────────────────────────────────────────────────────────


def collected(*options: str) -> list[str]:
    """The tests that pytest would run."""
    listed = run(sys.executable, "-m", "pytest", "-n0", "--collect-only", "-q", *options, cwd=ROOT).stdout
    return [line for line in listed.splitlines() if "::" in line]


@linux
@pytest.mark.slow
def test_matrix_holds_each_slow_test_once_and_the_others_on_each_python(tmp_path: Path) -> None:
    execute(command("ci.yml", "matrix", "shards.py"), GITHUB_OUTPUT=str(tmp_path / "output"))
    output = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    rows = json.loads(output["linux"])["include"]
    quick, slow = ([row for row in rows if row["tests"] == tests] for tests in ("not slow", "slow"))
    shards = [collected("-m", "slow", f"--shard={row['shard']}") for row in slow]

    assert JOBS["matrix"]["outputs"] == {name: f"${{{{ steps.shards.outputs.{name} }}}}" for name in output}
    assert json.loads(output["elsewhere"]) == [PYTHONS[0], PYTHONS[-1]]
    assert output["pythons"].split() == PYTHONS
    assert len(quick) + len(slow) == len(rows)
    assert [row["python"] for row in quick] == PYTHONS
    assert {row["shard"] for row in quick} == {"1/1"}
    assert {row["python"] for row in slow} <= set(PYTHONS)
    assert len(shards) > 1
    assert sorted(test for tests in shards for test in tests) == sorted(collected("-m", "slow"))
    for kind in ("pairs", "mutations", "updates"):  # what takes most of the time
        counts = [sum(test.startswith(f"tests/test_{kind}.py") for test in tests) for tests in shards]
        assert max(counts) <= min(counts) + 1


def test_matrix_is_the_one_that_was_computed() -> None:
    assert JOBS["linux"]["strategy"]["matrix"] == "${{ fromJSON(needs.matrix.outputs.linux) }}"
    assert JOBS["linux"]["env"]["PYTHONS"] == "${{ needs.matrix.outputs.pythons }}"
    assert JOBS["elsewhere"]["strategy"]["matrix"]["python"] == "${{ fromJSON(needs.matrix.outputs.elsewhere) }}"
    assert JOBS["linux"]["needs"] == JOBS["elsewhere"]["needs"] == "matrix"


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "a/b"])
def test_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        shard(text)


# ── The last job ───────────────────────────────────────────────────────────────────────────────────────────────────


@linux
def test_last_job_is_green_only_if_all_are() -> None:
    job = JOBS["proof"]
    (env,) = (step["env"] for step in job["steps"] if "RESULTS" in step.get("run", ""))
    check = command("ci.yml", "proof", "RESULTS")

    assert sorted([*job["needs"], "proof"]) == sorted(JOBS)
    assert job["if"] == "always()", "a required job that is skipped lets a change pass"
    assert env == {"RESULTS": "${{ join(needs.*.result, ' ') }}"}
    execute(check, RESULTS="success success success success")
    for result in ("failure", "cancelled", "skipped"):
        for number in range(4):
            results = ["success"] * 4
            results[number] = result
            assert execute(check, check=False, RESULTS=" ".join(results)).returncode


def test_no_job_but_the_last_goes_on_without_another() -> None:
    assert [job["name"] for job in ALL_JOBS if "if" in job] == [JOBS["proof"]["name"], "Tell of a bad night"]
    assert "continue-on-error" not in TEXT
    assert not [step for step in STEPS if "if" in step]


@linux
@pytest.mark.slow
def test_shards_prove_all_together_or_the_last_job_says_what_is_missing(tmp_path: Path) -> None:
    figures = Figures({})
    made, faults = [describe(answers) for answers in figures.combinations], list(figures.mutations)
    shards: list[dict[str, list[Any]]] = [
        {"case": figures.cases[part], "combinations": [made[part]], "fault": faults[part]}
        for part in (slice(None, None, 2), slice(1, None, 2))
    ]
    summary = tmp_path / "summary.md"

    def note(number: int, kinds: dict[str, list[Any]], of: str) -> None:
        file = tmp_path / "proof" / f"proof-{number}" / "proof.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        notes = {kind: {f"{kind} {number}": {"notes": noted, "seconds": 1}} for kind, noted in kinds.items()}
        file.write_text(json.dumps({"state": of, "notes": notes}), encoding="utf-8")

    def add_up() -> subprocess.CompletedProcess[str]:
        line = command("ci.yml", "proof", "proof.py")
        return execute(line, check=False, RUNNER_TEMP=str(tmp_path), GITHUB_STEP_SUMMARY=str(summary))

    for number, kinds in enumerate(shards):
        note(number, kinds, of=state())
    done = add_up()
    assert (done.returncode, done.stdout) == (0, "")
    for number in (len(made), len(faults), len(figures.cases)):
        assert f"| {number} of {number} |" in summary.read_text()

    lost = {kind: [noted.pop()] for kind, noted in (("case", shards[1]["case"]), ("fault", shards[0]["fault"]))}
    shards[0]["combinations"][0].pop()
    for number, kinds in enumerate(shards):
        note(number, kinds, of=state())
    note(2, lost, of="another commit")  # which proves nothing of this one
    done = add_up()
    assert done.returncode == 1
    assert f"not proven: the fault {lost['fault'][0]!r}\n" in done.stdout
    assert "not proven: the pair (" in done.stdout
    assert "not proven: 1 combinations" in done.stdout


def test_notes_are_handed_on() -> None:
    def given(job: str, action: str) -> dict[str, Any]:
        (step,) = (step for step in JOBS[job]["steps"] if step.get("uses", "").startswith(f"actions/{action}@"))
        return dict(step["with"])

    up, down = given("linux", "upload-artifact"), given("proof", "download-artifact")

    assert (up["path"], up["include-hidden-files"], up["if-no-files-found"]) == (
        ".pytest_cache/proof.json",
        True,
        "error",
    )
    assert up["name"] == down["pattern"].replace("*", "${{ strategy.job-index }}")
    assert down["path"] == "${{ runner.temp }}/proof"


# ── The nights, and releases ───────────────────────────────────────────────────────────────────────────────────────

# Answers what it is asked for, notes what it is told, and makes a release's tag where GitHub would.
GH = """#!/bin/sh
printf '%s\\0' "$@" >> "$GH_LOG"
case "$1 $2" in
  "issue list") echo "$GH_ANSWER" ;;
  "release create") git push --quiet origin "$5:refs/tags/$3" ;;
esac
"""


@pytest.fixture
def gh(tmp_path: Path) -> dict[str, str]:
    """The variables with which a gh is found that talks to nobody."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gh").write_text(GH)
    (tmp_path / "bin" / "gh").chmod(0o755)
    (tmp_path / "gh.log").touch()
    return {
        "PATH": os.pathsep.join((str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"])),
        "GH_LOG": str(tmp_path / "gh.log"),
    }


@linux
@pytest.mark.parametrize("number", ["", "7"])
def test_bad_night_is_told_in_one_issue(gh: dict[str, str], tmp_path: Path, number: str) -> None:
    job = WORKFLOWS["nightly.yml"]["jobs"]["tell"]
    env = {**job["steps"][0]["env"], **gh, "RUN": "https://example.com/runs/1", "GH_ANSWER": number}

    execute(job["steps"][0]["run"], tmp_path, **env)

    words = (tmp_path / "gh.log").read_text().split("\0")
    told = words[words.index("issue", 1) :]
    assert told[:3] == (["issue", "comment", "7"] if number else ["issue", "create", "--title"])
    assert told[-2].endswith("https://example.com/runs/1")
    assert f'"{env["TITLE"]}" in:title' in words
    assert number or told[3] == env["TITLE"]
    assert job["if"] == "failure()"


@pytest.fixture
def origin(template: Path, tmp_path: Path) -> Path:
    """This checkout at a place where its version has no tag."""
    run("git", "clone", "--quiet", "--bare", "--no-tags", template, tmp_path / "origin.git", cwd=tmp_path)
    return tmp_path / "origin.git"


def release(origin: Path, gh: dict[str, str], edit: tuple[str, str, str] | None = None) -> tuple[int, str, list[str]]:
    """Release from a fresh checkout, which may differ: the exit, what is printed, what gh was told."""
    folder = origin.with_name("checkout")
    if folder.exists():
        shutil.rmtree(folder)
    run("git", "clone", "--quiet", origin, folder, cwd=origin)
    if edit:
        name, old, new = edit
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")
    log = Path(gh["GH_LOG"])
    log.write_text("")
    sha = run("git", "rev-parse", "HEAD", cwd=folder).stdout.strip()
    line = command("release.yml", "release", "gh release")
    done = execute(line, folder, check=False, GITHUB_SHA=sha, **gh)
    return done.returncode, done.stdout, log.read_text().split("\0")[:-1]


@linux
def test_new_version_is_released_once(origin: Path, gh: dict[str, str]) -> None:
    head = run("git", "rev-parse", "HEAD", cwd=origin).stdout.strip()
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    section = changelog.partition(f"\n## [{VERSION}] - ")[2].partition("\n")[2].partition("\n## ")[0]

    exit_code, printed, told = release(origin, gh)
    assert exit_code == 0, printed
    *words, notes = told
    assert words == ["release", "create", f"v{VERSION}", "--target", head, "--title", f"v{VERSION}", "--notes"]
    assert notes.strip() == section.strip() != ""
    assert run("git", "rev-parse", f"refs/tags/v{VERSION}", cwd=origin).stdout.strip() == head

    assert release(origin, gh)[::2] == (0, [])


@linux
@pytest.mark.parametrize(
    ("edit", "version"),
    [
        (("pyproject.toml", f'version = "{VERSION}"', 'version = "99.0.0"'), "99.0.0"),
        (("CHANGELOG.md", f"## [{VERSION}]", f"## [{VERSION}]\n\n### Added\n\n## [0.0.1]"), VERSION),
        (("CHANGELOG.md", f"## [{VERSION}]", f"## [{VERSION}0]"), VERSION),
    ],
    ids=["no section", "empty section", "similar section"],
)
def test_version_of_which_the_changelog_says_nothing_is_refused(
    origin: Path, gh: dict[str, str], edit: tuple[str, str, str], version: str
) -> None:
    exit_code, printed, told = release(origin, gh, edit)

    assert exit_code == 1
    assert f"Nothing is said about version {version}" in printed
    assert told == []
    assert run("git", "tag", cwd=origin).stdout == ""


def test_nothing_is_released_that_is_not_proven() -> None:
    """Each push to main is proven once, and each night; whoever calls the proof finds it."""
    calls = {name: WORKFLOWS[name]["jobs"]["proof"]["uses"] for name in ("release.yml", "nightly.yml")}

    assert set(calls.values()) == {"$/.github/workflows/ci.yml"}
    assert WORKFLOWS["release.yml"]["jobs"]["release"]["needs"] == "proof"
    assert "if" not in WORKFLOWS["release.yml"]["jobs"]["release"]
    assert WORKFLOWS["nightly.yml"]["jobs"]["tell"]["needs"] == "proof"
    # YAML 1.1 reads the key `on` as a truth value.
    assert WORKFLOWS["release.yml"][True] == {"push": {"branches": ["main"]}}
    assert WORKFLOWS["ci.yml"][True].keys() == {"pull_request", "workflow_call", "workflow_dispatch"}
    ((trigger, (night,)),) = WORKFLOWS["nightly.yml"][True].items()
    assert trigger == "schedule"
    assert re.fullmatch(r"\d+ \d+ \* \* \*", night["cron"])


# ── What they are given ────────────────────────────────────────────────────────────────────────────────────────────


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
    uses = re.findall(r"uses: (?!\$/)(.*)", TEXT)

    assert len(uses) == sum("uses" in step for step in STEPS)
    for line in uses:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)
    assert len(set(uses)) == len({line.partition("@")[0] for line in uses}), "an action is pinned to two commits"


def test_jobs_get_no_more_than_they_need() -> None:
    assert "secrets." not in TEXT
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {}
    for job in ALL_JOBS:
        assert job["permissions"] == RIGHTS.get(job["name"], {"contents": "read"})
        assert "uses" in job or job["timeout-minutes"] <= 60
        if job["name"] in RIGHTS:  # nobody else's code has them
            assert all(step.get("uses", "actions/checkout@").startswith("actions/checkout@") for step in job["steps"])
    for step in STEPS:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        if step.get("uses", "").startswith("astral-sh/setup-uv@"):
            # Nothing cached is in a release, or keeps a dependency's from the proof of main and of a night.
            assert step["with"] == {"enable-cache": "${{ github.event_name == 'pull_request' }}"}


def test_actions_are_kept_current_after_a_while() -> None:
    dependabot = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    (actions,) = (update for update in dependabot["updates"] if update["package-ecosystem"] == "github-actions")

    assert actions["directory"] == "/"
    assert actions["cooldown"]["default-days"] >= 7
