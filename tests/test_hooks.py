"""After a copy: environment, tests and repository, or one line about each that says why not. Nothing is destroyed."""

import ast
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import copier
import pytest
from conftest import CONFIG, ROOT, Render, checked, run
from pytest_copie.plugin import Copie

# There is neither on Windows, where the stand-ins for uv and git, shell scripts, would not run either.
pexpect: Any = pytest.importorskip("pexpect")

HOOKS = ROOT / "hooks"
_, FLAGS, *_ = CONFIG["_tasks"][0]["command"]
PYTHON = str(Path(sys.executable).resolve())
UV = 'mkdir -p .venv/bin && cp "$(command -v project-python)" .venv/bin/python'
HANG = 'echo $$ >"$HANGS" && exec sleep 60'
# It has ensurepip, which Debian keeps in a package of its own.
VENV = (
    f'case "$*" in "-m venv "*) {UV} && echo home >.venv/pyvenv.cfg ;; -c*ensurepip*) ;; *) exec {PYTHON} "$@" ;; esac'
)
CERTIFICATE_ERROR = (
    "error: Failed to fetch: https://index.example/simple/flask/: invalid peer certificate: UnknownIssuer"
)
BROKEN_TEST = "def test_sum() -> None:\n    assert 1 + 1 == 3\n"
OURS = {path.stem for path in HOOKS.glob("*.py")}
Done = subprocess.CompletedProcess[str]


class Machine:
    """The programs of an imagined machine, in one folder that is its whole PATH, and what the hook does there."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.temp, self.hangs = folder / "bin", folder / "temp", folder / "hangs"
        self.hooks = HOOKS
        self.temp.mkdir(parents=True)
        self.bin.mkdir()
        for tool in ("cp", "env", "git", "mkdir", "sh", "sleep"):
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)
        for name in ("copiers-python", "python3"):
            (self.bin / name).symlink_to(PYTHON)
        self.program("uv", UV)
        self.program("project-python", "echo '3 passed in 0.12s'")
        self.env = {
            "PATH": str(self.bin),
            "HOME": str(folder),
            "TMPDIR": str(self.temp),
            "HANGS": str(self.hangs),
            "LC_ALL": "C.UTF-8",
            "PYTHONUNBUFFERED": "",
        }
        # Copier's own git takes more than we know.
        self.copiers_env = {**self.env, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}

    def program(self, name: str, script: str) -> None:
        """Replace a program by a shell script."""
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def git(self, words: str, instead: str) -> None:
        """Replace what git does where these words are among its own."""
        self.program("git", f'case "$*" in *{words}*) {instead} ;; esac\nexec {shutil.which("git")} "$@"')

    def distrust_index(self) -> None:
        """Let uv not trust the index, and pip not either; a Python makes environments."""
        first, cause = CERTIFICATE_ERROR.rsplit(": ", 2)[0], CERTIFICATE_ERROR.split("/: ")[1]
        causes = f"echo '  cause: client error (Connect)'; echo '  cause: {cause}'"
        self.program("uv", f"mkdir .venv; echo Using CPython; echo '{first}'; {causes}; exit 2")
        self.program("python3", VENV)
        self.program("project-python", "echo 'ERROR: No matching distribution found for pip>=25.1'; exit 1")

    def hook(self, *, git: str = "yes", keep: str = "no", python: str = "3.11") -> list[str]:
        """The hook's command line, run by a Python that has nothing beside it."""
        options = (f"--python={python}", f"--git={git}", f"--keep={keep}", "--answers-file=.copier-answers.yml")
        return [str(self.bin / "copiers-python"), FLAGS, str(self.hooks), "after_copy", "--package=myapp", *options]

    def finish(self, project: Path, *, status: int = 0, env: dict[str, str] | None = None, **options: str) -> str:
        """Run the hook as Copier does, for a person who stands beside the project."""
        env = {**self.env, "PWD": str(project.parent), **(env or {})}
        done = run(*self.hook(**options), cwd=project, check=False, **env)
        assert "Traceback" not in done.stdout
        assert done.returncode == status, done.stdout
        return done.stdout

    def logs(self) -> list[Path]:
        """What the hook left in the folder for temporary files."""
        return list(self.temp.glob("flask-starter-*"))

    def hanging(self) -> int:
        """Wait for a program to hang, and name its process."""
        deadline = time.monotonic() + 120
        while not (self.hangs.exists() and self.hangs.read_text().endswith("\n")):
            assert time.monotonic() < deadline, "nothing hangs"
            time.sleep(0.01)
        return int(self.hangs.read_text())


def steps(printed: str) -> list[str]:
    """The commands under "Next:", where they are as many lines."""
    return [line[2:] for line in printed.partition("\nNext:\n")[2].splitlines() if line.startswith("  ")]


def outcome(stage: str, printed: str) -> str:
    """What the one line about a stage says."""
    (line,) = re.findall(rf"^  {stage} +(.+) \(\d+\.\d s\)$", printed, re.MULTILINE)
    return str(line)


def commits(project: Path) -> list[str]:
    """The subjects of a repository's commits; none without a repository."""
    done = run("git", "log", "--format=%s", cwd=project, check=False) if (project / ".git").is_dir() else None
    return done.stdout.splitlines() if done and done.returncode == 0 else []


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_gone(process: int) -> bool:
    """Tell whether a process ends within a second."""
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def copy(template: Path, project: Path, *options: str, env: dict[str, str]) -> Done:
    """Type ``copier copy`` beside the project-to-be."""
    words = ("copy", "--trust", "--defaults", "--quiet", *options, str(template), str(project))
    here = project.parent
    return run(sys.executable, "-m", "copier", *words, cwd=here, check=False, PWD=str(here), **env)


def paste(commands: list[str], cwd: Path, **env: str) -> str:
    """Do the steps that the hook printed; see what flask they lead to, and serve nothing."""
    return run("sh", "-ec", "\n".join(commands).replace("run --debug", "--version"), cwd=cwd, check=True, **env).stdout


def paste_without_uv(printed: str, cwd: Path, **env: str) -> None:
    """Do those steps that have to do with git."""
    paste([step for step in steps(printed) if not step.startswith("uv ")], cwd, **env)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which all goes well, and fast: uv and the project's Python are stand-ins."""
    return Machine(tmp_path / "machine")


@pytest.fixture(scope="session")
def rendered(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without what the hook does, to copy."""
    project = tmp_path_factory.mktemp("rendered") / "myapp"
    copier.run_copy(str(template), project, defaults=True, skip_tasks=True, quiet=True)
    return project


@pytest.fixture
def project(rendered: Path, tmp_path: Path) -> Path:
    """A project as Copier leaves it to the hook."""
    return shutil.copytree(rendered, tmp_path / "work" / "myapp")


@pytest.fixture
def broken_template(template: Path, tmp_path: Path) -> Path:
    """The template with a mistake in it: what it generates fails its tests."""
    clone = tmp_path / "flask-starter"
    run("git", "clone", "--quiet", template, clone, cwd=tmp_path)
    shutil.rmtree(clone / "template" / "tests")
    (clone / "template" / "tests").mkdir()
    (clone / "template" / "tests" / "test_sum.py").write_text(BROKEN_TEST)
    for command in (("add", "--all"), ("commit", "--quiet", "--message", "Break it"), ("tag", "v9.9.9")):
        run("git", *command, cwd=clone)
    return clone


# ── All is well ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_copy_ends_with_green_tests_and_a_first_commit(
    copie: Copie, template: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = copie.copy(checked({"project_name": "My App"}), template_dir=template)

    assert result.exception is None
    assert result.project_dir
    printed = capfd.readouterr().out
    assert outcome("environment", printed) == "installed with uv"
    assert re.fullmatch(r"\d+ passed in \d+\.\d s", outcome("tests", printed))
    assert outcome("git", printed).startswith("first commit ")
    assert commits(result.project_dir) == ["Start from flask-starter"]
    assert run("git", "status", "--porcelain", cwd=result.project_dir).stdout == ""
    assert "uv.lock" in run("git", "ls-files", cwd=result.project_dir).stdout.split()


def test_stages_take_a_line_each_and_leave_only_the_steps_to_do(machine: Machine, project: Path) -> None:
    printed = machine.finish(project)

    commit = run("git", "rev-parse", "--short", "HEAD", cwd=project).stdout.strip()
    assert re.sub(r"\(\d+\.\d s\)", "(0.1 s)", printed) == (
        "\n"
        "  environment  installed with uv (0.1 s)\n"
        "  tests        3 passed in 0.1 s (0.1 s)\n"
        f"  git          first commit {commit} (0.1 s)\n"
        "\n"
        "Next:\n"
        "  cd myapp\n"
        "  uv run flask run --debug\n"
    )
    assert machine.logs() == []


def test_no_repository_is_made_where_none_was_asked_for(machine: Machine, project: Path) -> None:
    assert "git" not in machine.finish(project, git="no")
    assert not (project / ".git").exists()


def test_steps_start_with_the_way_to_the_project(machine: Machine, project: Path) -> None:
    def way(stands: Path) -> str:
        return steps(machine.finish(project, git="no", env={"PWD": str(stands)}))[0]

    machine.program("uv", "exit 0")
    assert way(project.parents[1]) == "cd work/myapp"
    assert way(project / "src") == f"cd {project}"
    assert not way(project).startswith("cd ")


def test_stage_is_announced_when_it_begins(machine: Machine, project: Path) -> None:
    machine.program("uv", HANG)
    env = {**os.environ, **machine.env}
    with subprocess.Popen(machine.hook(), cwd=project, stdout=subprocess.PIPE, env=env) as hook:
        machine.hanging()
        assert hook.stdout
        os.set_blocking(hook.stdout.fileno(), False)
        assert hook.stdout.read() == b"\n  environment  "
        hook.send_signal(signal.SIGINT)


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)])
def test_terminal_shows_colours_unless_refused(
    machine: Machine, project: Path, env: dict[str, str], coloured: bool
) -> None:
    command, *arguments = machine.hook()
    printed = pexpect.run(shlex.join([command, *arguments]), cwd=project, env={**os.environ, **machine.env, **env})

    assert b"3 passed" in printed
    assert (b"\033[" in printed) is coloured


@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_terminal_that_lacks_our_characters_costs_no_traceback(
    machine: Machine, project: Path, env: dict[str, str]
) -> None:
    project = project.rename(project.with_name("café ☕"))
    (project / "früher").write_text("A file of the owner's.")

    printed = machine.finish(project, env=env)

    assert outcome("tests", printed) == "3 passed in 0.1 s"
    assert "such as fr" in outcome("git", printed)


def test_output_that_nobody_reads_costs_nobody_the_project(machine: Machine, project: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    env = {**os.environ, **machine.env}
    done = subprocess.run(machine.hook(), cwd=project, env=env, stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)

    assert (done.returncode, done.stderr) == (0, "")
    assert commits(project) == ["Start from flask-starter"]


@pytest.mark.parametrize(
    "name", ["my app", "it's", 'a "b"', "$(touch x)", "Ωmega ☕", "-x", "a;touch x", "~", "back\\"]
)
def test_folder_may_have_any_name(machine: Machine, project: Path, name: str) -> None:
    project = project.rename(project.with_name(name))

    printed = machine.finish(project)

    assert commits(project) == ["Start from flask-starter"]
    assert run("sh", "-ec", f"{steps(printed)[0]}; pwd", cwd=project.parent).stdout == f"{project}\n"
    assert os.listdir(project.parent) == [name]


def test_own_variables_of_a_person_lead_nothing_astray(machine: Machine, project: Path, tmp_path: Path) -> None:
    """A test database of another project above all: the suite would empty it."""
    machine.program("uv", f"{UV}\nenv >{tmp_path}/seen")
    strange = {
        "TEST_DATABASE_URL": "postgresql://localhost/other",
        "PYTEST_ADDOPTS": "-k nothing",
        "UV_PROJECT_ENVIRONMENT": str(tmp_path / "other"),
        "UV_NO_DEV": "1",
        "PYTHONPATH": str(tmp_path),
        "COVERAGE_PROCESS_START": str(tmp_path / "coveragerc"),
        "WERKZEUG_RUN_MAIN": "true",
        "GIT_DIR": str(tmp_path / "other.git"),
    }

    machine.finish(project, env={**strange, "UV_INDEX_URL": "https://example.com/simple"})

    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert not strange.keys() & seen.keys()
    assert seen["UV_INDEX_URL"] == "https://example.com/simple"
    assert commits(project) == ["Start from flask-starter"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTHONSAFEPATH", "1"),
        ("PYTHONOPTIMIZE", "2"),
        ("PYTHONINSPECT", "1"),
        ("PYTHONWARNINGS", "error"),
        ("PYTHONDEVMODE", "1"),
        ("PYTHONVERBOSE", "1"),
        ("PYTHONHOME", "/nowhere"),
        ("PYTHONHASHSEED", "none"),
        ("PYTHONIOENCODING", "none"),
        ("PYTHONMALLOC", "none"),
        ("PYTHONPLATLIBDIR", "none"),
        ("PYTHONPROFILEIMPORTTIME", "1"),
        ("PYTHONUTF8", "none"),
        ("PYTHONWARNDEFAULTENCODING", "1"),
        ("PYTHON_GIL", "0"),
    ],
)
def test_variable_of_python_leads_no_hook_astray(machine: Machine, project: Path, name: str, value: str) -> None:
    """Neither the hook nor the commands that it runs."""
    machine.program("uv", f'{UV}\n[ -z "${name}" ]')

    printed = machine.finish(project, env={name: value})

    assert outcome("environment", printed) == "installed with uv"
    assert printed.endswith("  uv run flask run --debug\n")
    assert len(printed.splitlines()) == 8


@pytest.mark.parametrize(
    "env",
    [{"TMPDIR": "/nowhere"}, {"TMPDIR": "/dev/null"}, {"HOME": "/nowhere"}, {"COLUMNS": "0"}, {"TERM": "none"}],
    ids=str,
)
def test_odd_environment_leads_no_hook_astray(machine: Machine, project: Path, env: dict[str, str]) -> None:
    printed = machine.finish(project, env=env)

    assert outcome("tests", printed) == "3 passed in 0.1 s"
    assert commits(project) == ["Start from flask-starter"]


@pytest.mark.parametrize("separator", [os.pathsep, "\n"])
def test_folder_in_which_no_environment_works_is_refused(machine: Machine, project: Path, separator: str) -> None:
    project = project.rename(project.with_name(f"my{separator}app"))

    printed = machine.finish(project, git="no")

    said = f"not done: no environment works in a folder with {separator!r} in its path: rename the folder"
    assert outcome("environment", printed) == said


# ── An unexpected error ────────────────────────────────────────────────────────────────────────────────────────────


def patched(machine: Machine, folder: Path, old: str, new: str) -> None:
    """Give a machine's hooks a fault."""
    machine.hooks = shutil.copytree(HOOKS, folder / "hooks", ignore=shutil.ignore_patterns("__pycache__"))
    path = machine.hooks / "stages.py"
    source = path.read_text()
    assert old in source
    path.write_text(source.replace(old, new))


EXPECTED = pytest.mark.parametrize(
    ("ci", "keep", "status"), [("", "no", 0), ("false", "yes", 1), ("true", "no", 1)], ids=["person", "kept", "ci"]
)


@EXPECTED
def test_unexpected_error_is_a_sentence_and_a_log(
    machine: Machine, project: Path, tmp_path: Path, ci: str, keep: str, status: int
) -> None:
    before = contents(project)
    patched(machine, tmp_path, '    """Run the project\'s own suite."""\n', "    {}['nowhere']\n")

    printed = machine.finish(project, env={"CI": ci}, keep=keep, status=status)

    (log,) = machine.logs()
    error = (
        f"Stopped at the stage tests by an unexpected error: KeyError('nowhere') (log: {log}). The project is complete"
    )
    assert f"\n{error}: its README says how to set it up and test it.\n" in printed
    assert "Traceback (most recent call last)" in log.read_text()
    assert before.items() <= contents(project).items()


@EXPECTED
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import os\n", "import nowhere\n"),
        ("import os\n", "import os\n)\n"),
        ("tempfile.mkstemp(", "tempfile.nowhere("),
    ],
    ids=["import", "syntax", "log"],
)
def test_error_before_there_is_a_log_is_shown(
    machine: Machine, project: Path, tmp_path: Path, ci: str, keep: str, status: int, old: str, new: str
) -> None:
    patched(machine, tmp_path, old, new)

    done = run(*machine.hook(keep=keep), cwd=project, check=False, **machine.env, CI=ci)

    assert done.returncode == status, done.stdout
    assert "Traceback (most recent call last)" in done.stdout
    assert "The hook stopped at the error above. The files of the project are complete.\n" in done.stdout


@EXPECTED
@pytest.mark.parametrize("blocks", [0, 1])
def test_full_disk_is_a_sentence(machine: Machine, project: Path, blocks: int, ci: str, keep: str, status: int) -> None:
    """A limit of a file's size stands for it: 0 leaves no temporary folder, and 1 no room in the log."""
    machine.program("uv", "trap '' XFSZ; while echo x; do :; done; exit 1")
    limited = ("sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh")
    before = contents(project)

    done = run(*limited, *machine.hook(keep=keep), cwd=project, check=False, **machine.env, CI=ci)

    assert done.returncode == status, done.stdout
    assert contents(project) == before
    stopped = "by an unexpected error: OSError(27, 'File too large')" if blocks else "at the error above"
    assert stopped in done.stdout
    assert "complete" in done.stdout


def test_copy_keeps_a_project_whose_hook_stops(template: Path, machine: Machine, tmp_path: Path) -> None:
    """With ``PYTHONSAFEPATH`` the hook could not be imported, and Copier deleted the project."""
    clone = tmp_path / "flask-starter"
    run("git", "clone", "--quiet", template, clone, cwd=tmp_path)
    (clone / "hooks" / "after_copy.py").write_text("import nowhere\n")
    for command in (("commit", "--quiet", "--all", "--message", "Break it"), ("tag", "v9.9.9")):
        run("git", *command, cwd=clone)

    broken = copy(clone, tmp_path / "broken", env=machine.copiers_env)
    safe = copy(template, tmp_path / "safe", env={**machine.copiers_env, "PYTHONSAFEPATH": "1"})

    assert "No module named 'nowhere'" in broken.stdout
    assert (broken.returncode, safe.returncode) == (0, 0)
    assert (tmp_path / "broken" / "README.md").exists()
    assert outcome("environment", safe.stdout) == "installed with uv"


# ── The environment cannot be made ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("ci", "keep", "status"), [("", "no", 0), ("false", "yes", 0), ("true", "yes", 1)])
def test_missing_environment_is_an_error_for_machines_only(
    machine: Machine, project: Path, ci: str, keep: str, status: int
) -> None:
    machine.distrust_index()

    printed = machine.finish(project, keep=keep, env={"CI": ci}, status=status)

    (log,) = machine.logs()
    assert outcome("environment", printed) == f"not done: {CERTIFICATE_ERROR} (log: {log})"
    assert outcome("tests", printed) == "not done: the environment comes first"
    assert outcome("git", printed).startswith("first commit ")
    assert steps(printed) == ["cd myapp", "uv sync", "uv run pytest", "uv run flask run --debug"]
    assert not (project / ".venv").exists()


def test_pip_makes_the_environment_that_uv_cannot_make(machine: Machine, project: Path) -> None:
    machine.distrust_index()
    machine.program("project-python", "echo '3 passed in 0.12s'")

    printed = machine.finish(project)

    (log,) = machine.logs()
    expected = f"installed with pip, because uv failed: {CERTIFICATE_ERROR} (log: {log})"
    assert outcome("environment", printed) == expected
    assert outcome("tests", printed) == "3 passed in 0.1 s"
    assert steps(printed) == ["cd myapp", ".venv/bin/flask run --debug"]


@pytest.fixture
def untrusted_index(tmp_path: Path) -> Iterator[str]:
    """Serve a package index with a certificate that nothing trusts."""
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    run(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "key",
        *subject,
        "-out",
        "crt",
        cwd=tmp_path,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    server = ThreadingHTTPServer(("localhost", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl command, which makes the certificate")
def test_untrusted_certificate_is_named(machine: Machine, project: Path, tmp_path: Path, untrusted_index: str) -> None:
    pytest.importorskip("ensurepip")  # which Debian keeps in a package of its own
    (machine.bin / "uv").unlink()
    (machine.bin / "uv").symlink_to(shutil.which("uv") or "uv")
    indexes = {"UV_DEFAULT_INDEX": untrusted_index, "PIP_INDEX_URL": untrusted_index, "PIP_FIND_LINKS": ""}
    own = {"UV_CACHE_DIR": str(tmp_path / "empty"), "UV_NO_CONFIG": "1", "PIP_CONFIG_FILE": os.devnull}

    printed = machine.finish(project, git="no", env=indexes | own)

    (log,) = machine.logs()
    said = outcome("environment", printed)
    assert said.startswith(f"not done: error: Failed to fetch: {untrusted_index}/")
    assert "invalid peer certificate: " in said
    assert "CERTIFICATE_VERIFY_FAILED" in log.read_text(), "pip was not tried"
    assert not (project / ".venv").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "download",
    [
        {"UV_PYTHON_DOWNLOADS": "never"},
        {"UV_PYTHON_DOWNLOADS": "automatic", "UV_PYTHON_INSTALL_MIRROR": "http://127.0.0.1:9", "UV_HTTP_RETRIES": "0"},
    ],
    ids=["forbidden", "unreachable"],
)
def test_python_that_uv_cannot_download_is_taken_from_the_system(
    machine: Machine, project: Path, tmp_path: Path, download: dict[str, str]
) -> None:
    pytest.importorskip("ensurepip")
    (machine.bin / "uv").unlink()
    (machine.bin / "uv").symlink_to(shutil.which("uv") or "uv")
    own = {"UV_PYTHON_INSTALL_DIR": str(tmp_path / "empty"), "UV_PYTHON_PREFERENCE": "only-managed"}

    printed = machine.finish(project, git="no", env=download | own)

    assert outcome("environment", printed).startswith("installed with pip, because uv failed: error: ")
    assert " passed in " in outcome("tests", printed)
    assert steps(printed) == ["cd myapp", ".venv/bin/flask run --debug"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", [{"UV_OFFLINE": "1"}, {"HTTPS_PROXY": "http://127.0.0.1:9", "UV_HTTP_RETRIES": "0"}]
)
def test_steps_make_up_for_a_missing_network(
    machine: Machine, project: Path, tmp_path: Path, network: dict[str, str]
) -> None:
    (machine.bin / "uv").unlink()
    (machine.bin / "uv").symlink_to(shutil.which("uv") or "uv")
    network |= {"UV_CACHE_DIR": str(tmp_path / "empty"), "UV_NO_CONFIG": "1"}

    printed = machine.finish(project, git="no", env=network)

    assert outcome("environment", printed).startswith("not done: error: ")
    later = paste(steps(printed), project.parent)
    assert " passed in " in later
    assert "Flask 3" in later


def test_cause_that_is_not_known_is_told_with_its_log(machine: Machine, project: Path) -> None:
    machine.program("uv", "echo Resolved 3 packages; echo 'error: No solution found'; echo 'hint: none'; exit 1")

    printed = machine.finish(project)

    (log,) = machine.logs()
    assert outcome("environment", printed) == f"not done: error: No solution found (log: {log})"
    assert "hint: none" in log.read_text()


@pytest.mark.parametrize("script", ["#!/nowhere/python\n", "\0"])
def test_program_that_cannot_run_costs_nobody_the_project(machine: Machine, project: Path, script: str) -> None:
    (machine.bin / "uv").write_text(script)

    printed = machine.finish(project)

    assert outcome("environment", printed).startswith("not done: error: ")
    assert commits(project) == ["Start from flask-starter"]


@pytest.mark.parametrize("with_uv", [True, False])
def test_python_that_is_too_old_is_named(machine: Machine, project: Path, with_uv: bool) -> None:
    (machine.bin / "uv").unlink()
    if with_uv:
        (machine.bin / "uv").symlink_to(shutil.which("uv") or "uv")
    metadata = project / "pyproject.toml"
    metadata.write_text(metadata.read_text().replace('">=3.11"', '">=3.99"'))

    printed = machine.finish(project, git="no", python="3.99", env={"UV_PYTHON_DOWNLOADS": "never"})

    by_uv = "not done: error: No interpreter found for Python >=3.99 "
    said = by_uv if with_uv else "not done: no Python 3.99 or newer with venv was found "
    assert outcome("environment", printed).startswith(said)
    assert steps(printed)[1] == ("uv sync" if with_uv else "python3.99 -m venv .venv")


def test_uv_beside_copier_will_do(machine: Machine, project: Path, tmp_path: Path) -> None:
    """The steps must do without it: a person cannot type its name."""
    (tmp_path / "copiers").mkdir()
    (machine.bin / "uv").rename(tmp_path / "copiers" / "uv")
    (machine.bin / "copiers-python").rename(tmp_path / "copiers" / "python")

    hook = (str(tmp_path / "copiers" / "python"), *machine.hook()[1:])
    printed = run(*hook, cwd=project, check=True, **machine.env).stdout

    assert outcome("environment", printed) == "installed with uv"
    assert steps(printed)[-1] == ".venv/bin/flask run --debug"


def test_without_uv_and_network_pip_says_it_in_a_line(machine: Machine, project: Path) -> None:
    machine.distrust_index()
    (machine.bin / "uv").unlink()

    printed = machine.finish(project)

    (log,) = machine.logs()
    said = f"not done: ERROR: No matching distribution found for pip>=25.1 (log: {log})"
    assert outcome("environment", printed) == said
    assert steps(printed) == [
        "cd myapp",
        "python3 -m venv .venv",
        ".venv/bin/python -m pip install --upgrade pip",
        ".venv/bin/python -m pip install --editable . --group dev",
        ".venv/bin/pytest",
        ".venv/bin/flask run --debug",
    ]


@pytest.mark.slow
def test_without_uv_pip_makes_the_environment(machine: Machine, project: Path, tmp_path: Path) -> None:
    """Whatever a person's own settings of pip are for."""
    (machine.bin / "uv").unlink()
    config = tmp_path / "pip.conf"
    config.write_text("[install]\nuser = true\n")
    strange = {"PIP_NO_DEPS": "1", "PIP_DRY_RUN": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_TARGET": str(tmp_path)}

    printed = machine.finish(project, env={"PIP_CONFIG_FILE": str(config), **strange})

    assert outcome("environment", printed) == "installed with pip"
    assert re.fullmatch(r"\d+ passed in \d+\.\d s", outcome("tests", printed))
    assert steps(printed) == ["cd myapp", ".venv/bin/flask run --debug"]
    assert commits(project) == ["Start from flask-starter"]


@pytest.mark.slow
def test_without_uv_steps_make_up_for_a_missing_network(machine: Machine, project: Path) -> None:
    (machine.bin / "uv").unlink()
    network = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}

    printed = machine.finish(project, git="no", env=network)

    assert outcome("environment", printed).startswith("not done: ERROR: ")
    later = paste(steps(printed), project.parent, **machine.env)
    assert " passed in " in later
    assert "Flask 3" in later


# ── The tests fail ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ci", "keep", "status"), [("", "no", 0), ("0", "no", 0), ("", "yes", 1), ("1", "no", 1), ("true", "yes", 1)]
)
def test_failing_suite_is_loud(machine: Machine, project: Path, ci: str, keep: str, status: int) -> None:
    machine.program("project-python", "echo 'assert 1 + 1 == 3'; echo '1 failed, 2 passed in 0.12s'; exit 1")

    printed = machine.finish(project, keep=keep, env={"CI": ci}, status=status)

    (log,) = machine.logs()
    assert outcome("tests", printed) == "FAILED: 1 failed, 2 passed in 0.1 s"
    assert "\nassert 1 + 1 == 3\n" in printed
    assert "assert 1 + 1 == 3" in log.read_text()
    assert f"All of it: {log}\n" in printed
    assert "Run them again: uv run pytest\n" in printed
    assert ("project kept" in printed) is not (status == 1 and keep == "no")
    assert steps(printed)[:2] == ["cd myapp", "uv run pytest"]
    assert commits(project) == ["Start from flask-starter"]


def test_tail_of_a_long_log_is_short(machine: Machine, project: Path) -> None:
    machine.program("project-python", "for i in 1 2 3 4 5 6 7 8 9; do echo $i.1; echo $i.2; echo $i.3; done; exit 1")

    printed = machine.finish(project)

    assert "\n1.2\n" not in printed
    assert "\n9.3\n" in printed


@pytest.mark.parametrize(
    ("options", "ci", "kept"), [([], "", True), ([], "true", False), (["--no-cleanup"], "true", True)]
)
def test_copy_keeps_a_project_whose_tests_fail(
    broken_template: Path, machine: Machine, tmp_path: Path, options: list[str], ci: str, kept: bool
) -> None:
    project = tmp_path / "myapp"

    done = copy(broken_template, project, "--data=database=none", *options, env={"CI": ci, "TMPDIR": str(machine.temp)})

    assert "1 failed" in outcome("tests", done.stdout)
    assert "assert (1 + 1) == 3" in done.stdout
    assert ("project kept" in done.stdout) is kept
    assert (done.returncode != 0) is bool(ci)
    assert commits(project) == (["Start from flask-starter"] if kept else [])
    assert "1 + 1" in machine.logs()[0].read_text()


# ── The folder is not ours alone ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["notes.txt", "src/other/module.py", ".git"])
def test_files_that_were_there_before_are_not_committed(machine: Machine, project: Path, name: str) -> None:
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text("The owner's.")
    before = contents(project)

    printed = machine.finish(project)

    assert outcome("git", printed).startswith("not done: ")
    assert not (project / ".git").is_dir()
    assert before.items() <= contents(project).items()


def test_link_that_was_there_before_is_not_committed(machine: Machine, project: Path) -> None:
    (project / "link").symlink_to("src")

    assert "there were files before, such as link" in outcome("git", machine.finish(project))


def test_file_that_the_owner_kept_is_not_committed(machine: Machine, template: Path, tmp_path: Path) -> None:
    project = tmp_path / "myapp"
    project.mkdir()
    (project / "README.md").write_text("The owner's.")

    done = copy(template, project, "--skip=README.md", env=machine.copiers_env)

    assert done.returncode == 0
    assert "there were files before, such as README.md" in outcome("git", done.stdout)
    assert steps(done.stdout)[1:4] == ["git init", "git add .", 'git commit -m "Start from flask-starter"']
    assert not (project / ".git").exists()
    assert (project / "README.md").read_text() == "The owner's."


@pytest.mark.parametrize("name", [".venv", "uv.lock"])
def test_environment_that_was_there_before_stays(machine: Machine, project: Path, name: str) -> None:
    (project / name).write_text("The owner's.")

    printed = machine.finish(project, git="no")

    assert outcome("environment", printed) == f"not done: {name} was here before, and stays as it is"
    assert (project / name).read_text() == "The owner's."
    assert steps(printed)[1:3] == ["uv sync", "uv run pytest"]


@pytest.mark.parametrize(
    "text", ['[tool.uv.workspace]\nmembers = ["*"]\n', '[tool.uv]\nworkspace = { members = ["*"] }\n']
)
def test_workspace_around_the_project_is_left_alone(machine: Machine, project: Path, text: str) -> None:
    (project.parent / "pyproject.toml").write_text(text)

    printed = machine.finish(project, git="no")

    assert outcome("environment", printed) == f"not done: uv would change the workspace in {project.parent}"


def test_repository_around_the_project_is_left_alone(machine: Machine, project: Path) -> None:
    outer = project.parent
    run("git", "init", "--quiet", cwd=outer)
    (outer / "notes.txt").write_text("The owner's.")
    run("git", "add", "notes.txt", cwd=outer)
    (outer / "draft.txt").write_text("The owner's.")
    before = contents(outer / ".git")

    printed = machine.finish(project, env={"GIT_CEILING_DIRECTORIES": str(outer), "GIT_INDEX_FILE": "/nowhere"})

    assert outcome("git", printed) == f"not done: the folder is in the repository {outer}"
    assert contents(outer / ".git") == before
    assert not (project / ".git").exists()
    paste_without_uv(printed, outer)
    committed = run("git", "ls-tree", "-r", "--name-only", "HEAD", cwd=outer).stdout.splitlines()
    assert {name.split("/")[0] for name in committed} == {"myapp"}
    assert run("git", "status", "--short", cwd=outer).stdout == "A  notes.txt\n?? draft.txt\n"


# ── Git will not ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_git_there_is_no_repository(machine: Machine, project: Path) -> None:
    (machine.bin / "git").unlink()

    printed = machine.finish(project)

    assert outcome("git", printed) == "not done: git is not installed"
    paste_without_uv(printed, project.parent)
    assert commits(project) == ["Start from flask-starter"]


@pytest.mark.parametrize("known", ["", "[user]\nname = Grace Hopper\n"])
def test_without_an_identity_nobody_is_made_up(machine: Machine, project: Path, known: str) -> None:
    config = project.parent / "gitconfig"
    config.write_text(known)

    printed = machine.finish(project, env={"GIT_CONFIG_GLOBAL": str(config)})

    assert outcome("git", printed) == "not done: git does not know who you are"
    assert not (project / ".git").exists()
    missing = [step for step in steps(printed) if step.startswith("git config")]
    assert len(missing) == (1 if known else 2)
    paste_without_uv(printed, project.parent, GIT_CONFIG_GLOBAL=str(config))
    who = run("git", "log", "--format=%an <%ae>", cwd=project).stdout
    assert who == f"{'Grace Hopper' if known else 'Ada Lovelace'} <ada@example.com>\n"


def test_owners_keys_and_hooks_cannot_stop_the_first_commit(machine: Machine, project: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "git-template" / "hooks"
    hooks.mkdir(parents=True)
    for name in ("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
        (hooks / name).chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(
        "[user]\nname = Ada Lovelace\nemail = ada@example.com\n[commit]\ngpgSign = true\n[gpg]\nprogram = false\n"
        f"[core]\nhooksPath = {hooks}\n[init]\ntemplateDir = {hooks.parent}\ndefaultBranch = trunk\n"
    )

    machine.finish(project, env={"GIT_CONFIG_GLOBAL": str(config)})

    assert commits(project) == ["Start from flask-starter"]
    assert not (tmp_path / "ran").exists()
    assert (project / ".git" / "hooks" / "pre-commit").exists()
    assert run("git", "branch", "--show-current", cwd=project).stdout == "trunk\n"


def test_repository_that_git_cannot_finish_is_told_with_its_log(machine: Machine, project: Path) -> None:
    machine.git("--message", "echo 'warning: slow'; echo 'fatal: disk full'; exit 128")

    printed = machine.finish(project)

    (log,) = machine.logs()
    assert outcome("git", printed) == f"not done: fatal: disk full (log: {log})"
    assert not (project / ".git").exists()
    paste_without_uv(printed, project.parent)
    assert commits(project) == ["Start from flask-starter"]


# ── Ctrl-C ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stage", ["environment", "tests"])
def test_ctrl_c_during_a_copy_leaves_a_whole_project(
    machine: Machine, template: Path, rendered: Path, tmp_path: Path, stage: str
) -> None:
    machine.program("uv" if stage == "environment" else "project-python", HANG)
    project = tmp_path / "myapp"
    command = ["-m", "copier", "copy", "--trust", "--defaults", "--quiet", str(template), str(project)]
    child = pexpect.spawn(
        sys.executable, command, env={**os.environ, **machine.copiers_env}, encoding="utf-8", timeout=30
    )
    child.expect_exact(f"  {stage} ")
    hangs = machine.hanging()

    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()

    assert child.before.count(f"Stopped at the stage {stage}. The project is complete:") == 1
    assert "Traceback" not in child.before
    assert is_gone(hangs)
    assert contents(rendered).items() <= contents(project).items()
    assert machine.logs() == []


@pytest.mark.parametrize(("keep", "status"), [("no", 0), ("yes", 130)])
@pytest.mark.parametrize("stage", ["environment", "tests", "git"])
def test_hook_that_is_interrupted_alone_leaves_nothing_behind(
    machine: Machine, project: Path, stage: str, keep: str, status: int
) -> None:
    """Not even for an impatient person; and Copier, which goes on here, would delete the project for a status."""
    if stage == "git":
        machine.git("--message", HANG)
    else:
        machine.program("uv" if stage == "environment" else "project-python", HANG)
    env = {**os.environ, **machine.env}
    hook = subprocess.Popen(
        machine.hook(keep=keep), cwd=project, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    hangs = machine.hanging()

    hook.send_signal(signal.SIGINT)
    hook.send_signal(signal.SIGINT)
    printed, _ = hook.communicate(timeout=10)

    assert hook.returncode == status
    assert printed.endswith(
        f"\nStopped at the stage {stage}. The project is complete: its README says how to set it up and test it.\n"
    )
    assert "Traceback" not in printed
    assert is_gone(hangs)
    assert machine.logs() == []
    assert not (project / ".git").exists()


# ── The hook is a convenience ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_skipping_tasks_leaves_a_complete_project(render: Render) -> None:
    project = render()

    assert not {".git", ".venv", "uv.lock"} & set(os.listdir(project))
    commands = re.findall(r"```sh\n(.+?)```", (project / "README.md").read_text(), re.DOTALL)
    run_it = commands[0].replace("flask run --debug", "flask --version")
    (test_it,) = (block for block in commands if "poe check" in block)
    checked = test_it.partition("uv run pytest")[0]
    assert " passed in " in run("sh", "-ec", run_it + checked, cwd=project).stdout


def test_update_without_tasks_runs_none_of_it(template: Path, tmp_path: Path, rendered: Path) -> None:
    project = shutil.copytree(rendered, tmp_path / "myapp")
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message", "Start")):
        run("git", *command, cwd=project)

    update = (
        "update",
        "--trust",
        "--defaults",
        "--skip-tasks",
        "--quiet",
        "--vcs-ref=:current:",
        "--data=database=none",
    )
    printed = run(sys.executable, "-m", "copier", *update, cwd=project).stdout

    assert "database: none" in (project / ".copier-answers.yml").read_text()
    assert not (project / "migrations").exists()
    assert "environment" not in printed
    assert not {".venv", "uv.lock"} & set(os.listdir(project))


def test_answers_reach_the_hook_as_arguments() -> None:
    for task in CONFIG["_tasks"]:
        assert isinstance(task["command"], list), "a string goes through a shell"
        assert task["command"][1] == FLAGS
        assert "_copier_operation == 'copy'" in task["when"]
    for migration in CONFIG["_migrations"]:
        assert isinstance(migration["command"], list)
        assert migration["command"][1] == FLAGS


@pytest.mark.parametrize("path", sorted(HOOKS.glob("*.py")), ids=lambda path: path.name)
def test_hooks_need_only_the_standard_library_of_copiers_oldest_python(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))

    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    assert {module.partition(".")[0] for module in modules} <= sys.stdlib_module_names | OURS
