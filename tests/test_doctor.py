"""``flask doctor`` is silent about a server that was set up by the README, and names each fault put into it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from conftest import COUNTABLE, describe, has_python, run
from questionnaire import Questionnaire
from test_server import free_port, get
from test_suites import SERVERS, empty_database

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the README's block is for a shell"),
]
FORMS = [
    {"database": database, "proxy_fix": proxy_fix}
    for database, proxy_fix in product(COUNTABLE["database"], COUNTABLE["proxy_fix"])
]
STRONG = "3f1c8a5e9b7d20463f1c8a5e9b7d2046"
MIGRATED = {"database": "sqlite", "proxy_fix": True}
PROXIED = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "example.com"}
# Runs the command with another table of Pythons, as if years had passed.
LATER = """
import json, sys
from myapp import doctor

doctor.END_OF_LIFE = json.loads(sys.argv.pop(1))
doctor.doctor()
"""


class Host:
    """A project that was set up for production, and the environment of its commands."""

    def __init__(self, folder: Path, database: str, url: str) -> None:
        self.folder = folder
        self.database = database
        self.env = {"FLASK_SECRET_KEY": STRONG, "FLASK_TRUSTED_HOSTS": "example.com"}
        if url:
            self.env["DATABASE_URL"] = url

    def type(self, script: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Type a command into a shell in the project's environment."""
        search = os.pathsep.join((str(self.folder / ".venv/bin"), os.environ["PATH"]))
        return run("bash", "-euc", script, cwd=self.folder, check=False, **(env or self.env), PATH=search)

    def doctor(self, *options: str, env: dict[str, str] | None = None) -> list[dict[str, str]]:
        """What is found."""
        words = " ".join(f"'{option}'" for option in options or ("--port=0",))
        return self.listed(f"flask doctor {words}", env)

    def listed(self, command: str, env: dict[str, str] | None = None) -> list[dict[str, str]]:
        """The findings of a command, once it is certain that each is an error and that its exit status says so."""
        done = self.type(f"{command} --json", env)
        findings: list[dict[str, str]] = json.loads(done.stdout)
        assert done.returncode == (1 if findings else 0)
        assert all(finding["level"] == "error" for finding in findings)
        return findings

    def follow(self, advice: str, env: dict[str, str]) -> dict[str, str]:
        """The environment after somebody did what a finding says."""
        after = dict(env)
        for name in re.findall(r"\b[Uu]nset (FLASK_\w+)", advice):
            del after[name]
        for name, value in re.findall(r"\b(FLASK_\w+)=(\S+?)[,.]?(?=\s|$)", advice):
            after[name] = value
        for command in re.findall(r"`(flask [^`]+ secret-key)`", advice):
            if "Set FLASK_SECRET_KEY " in advice:
                after["FLASK_SECRET_KEY"] = self.type(command, env).stdout.strip()
        return after


@pytest.fixture(scope="module")
def make_host(questionnaire: Questionnaire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Write a project, make its environment, and where it wants a server a database of its own there."""
    databases = ExitStack()

    def make(database: str, proxy_fix: bool) -> Host:
        url = databases.enter_context(empty_database(database)) if database in SERVERS else ""
        folder = tmp_path_factory.mktemp("doctor") / "myapp"
        questionnaire.write(folder, database=database, proxy_fix=proxy_fix)
        run("uv", "sync", cwd=folder)
        return Host(folder, database, url)

    with databases:
        yield make


@pytest.fixture(scope="module")
def host(make_host: Any) -> Host:
    """A host whose database is migrated and which finds nothing to complain of."""
    host: Host = make_host(**MIGRATED)
    assert host.type("flask db upgrade").returncode == 0
    assert host.type("flask doctor --port 0").stdout == "ready\n"
    return host


@pytest.fixture
def scratch(host: Host, tmp_path: Path) -> Host:
    """A copy of the project and its data with an environment of its own, to be broken."""
    folder = tmp_path / "myapp"
    shutil.copytree(host.folder, folder, ignore=shutil.ignore_patterns(".venv"))
    run("uv", "sync", cwd=folder)
    return Host(folder, host.database, "")


def readme(host: Host) -> str:
    """What the README says about deploying."""
    text = (host.folder / "README.md").read_text()
    block = re.search(r"^## Deploy it$.*?^```sh$(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block
    return block[1]


@pytest.mark.parametrize("answers", FORMS, ids=describe)
def test_setup_to_the_letter_of_the_readme_is_ready_and_serves(make_host: Any, answers: dict[str, Any]) -> None:
    host: Host = make_host(**answers)
    script = readme(host)
    if "DATABASE_URL" in host.env:  # an example there, as the reader's own address is not known
        script, count = re.subn(r"^(export DATABASE_URL=).*", rf"\g<1>{host.env['DATABASE_URL']}", script, flags=re.M)
        assert count == 1
    port = free_port()
    log = host.folder / "readme.log"
    env = {**os.environ, "PORT": str(port)}
    with log.open("w") as output:
        typed = subprocess.Popen(
            ["bash", "-euc", script], cwd=host.folder, env=env, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 60
        while "Booting worker" not in log.read_text():
            assert typed.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        assert "Open <http://localhost:8000>" in (host.folder / "README.md").read_text()
        assert get(port, Host="localhost:8000")[0].status == 200
        assert get(port, Host="example.com")[0].status == 200
        assert get(port, Host="evil.example")[0].status == 400
        (taken,) = host.doctor(f"--port={port}")
    finally:
        os.killpg(typed.pid, signal.SIGTERM)
        typed.wait(30)

    said = log.read_text()
    assert re.search(r"^ready$", said, re.MULTILINE)
    assert not re.search(r"^(error|advice): ", said, re.MULTILINE)
    assert taken["check"] == "server"
    assert "--port 0" in taken["do"]


@pytest.mark.parametrize(
    ("check", "faults"),
    [
        ("secret", {"FLASK_SECRET_KEY": None}),
        ("secret", {"FLASK_SECRET_KEY": "dev"}),
        ("secret", {"FLASK_SECRET_KEY": "change-me-before-production"}),
        ("secret", {"FLASK_SECRET_KEY": "abababababababababababab"}),
        ("secret", {"FLASK_SECRET_KEY": None, "FLASK_SECRET_KEY_FILE": "/nowhere/secret_key"}),
        ("secret", {"FLASK_SECRET_KEY_FALLBACKS": "o"}),
        ("debug", {"FLASK_DEBUG": "1"}),
        ("secret", {"FLASK_SECRET_KEY": "$(openssl rand -hex 32)"}),
        ("secret", {"FLASK_SECRET_KEY": "${FLASK_SECRET_KEY:?missing}"}),
        ("secret", {"FLASK_SECRET_KEY": "<output of flask secret-key>"}),
        ("debug", {"FLASK_TESTING": "1"}),
        ("debug", {"FLASK_PROPAGATE_EXCEPTIONS": "1"}),
        ("debug", {"FLASK_TRAP_HTTP_EXCEPTIONS": "yes"}),
        ("debug", {"FLASK_TRAP_BAD_REQUEST_ERRORS": "on"}),
        ("hosts", {"FLASK_TRUSTED_HOSTS": None}),
        ("tour", {"FLASK_TOUR": "true"}),
        ("cookies", {"FLASK_SESSION_COOKIE_SECURE": "false"}),
        ("cookies", {"FLASK_SESSION_COOKIE_HTTPONLY": "0"}),
        ("cookies", {"FLASK_SESSION_COOKIE_SAMESITE": "None"}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(f"{k}={v}" for k, v in value.items()),
)
def test_wrong_setting_is_named_and_its_cure_mends_it(host: Host, check: str, faults: dict[str, str | None]) -> None:
    env = {name: value for name, value in {**host.env, **faults}.items() if value is not None}

    (finding,) = host.doctor(env=env)

    assert finding["check"] == check
    mended = host.follow(finding["do"], env)
    assert mended != env
    assert host.doctor(env=mended) == []


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("LOG_LEVEL", "loud", "INFO"),
        ("PROXY_FIX_X_FOR", "many", "set a whole number"),
        ("PROXY_FIX_X_FOR", "-1", "set a whole number"),
        ("MAX_CONTENT_LENGTH", "16MB", "set a whole number"),
        ("MAX_CONTENT_LENGTH", "0", "set 1 or more"),
        ("PERMANENT_SESSION_LIFETIME", "1h", "a number of seconds"),
        ("SESSION_COOKIE_SECURE", "enabled", "set true or false"),
        ("SESSION_COOKIE_NAME", "__Secure-visit", "requires Secure"),
        ("SESSION_COOKIE_SAMESITE", "Sometimes", "not Strict, Lax or None"),
        ("CSRF_TRUSTED_ORIGINS", "accounts.example.com", "set origins"),
        ("CSRF_TRUSTED_ORIGINS", "https://accounts.example.com:443", "set origins"),
        ("TRUSTED_HOSTS", "*", "set host names"),
        ("TRUSTED_HOSTS", "https://example.com/", "set host names"),
    ],
)
def test_setting_that_can_never_work_stops_doctor_and_the_server(host: Host, name: str, value: str, word: str) -> None:
    env = host.env | {f"FLASK_{name}": value}
    if word == "requires Secure":
        env["FLASK_SESSION_COOKIE_SECURE"] = "false"

    (finding,) = host.doctor(env=env)

    assert finding["check"] in ("settings", "start")
    assert f"FLASK_{name}" in finding["what"] or "session cookie" in finding["what"]
    assert word in finding["what"]
    served = host.type("gunicorn --check-config", env)
    assert served.returncode != 0
    assert finding["what"] in served.stdout


@pytest.mark.parametrize("name", ["WEB_CONCURRENCY", "WEB_THREADS", "WEB_GRACEFUL_TIMEOUT"])
@pytest.mark.parametrize("value", ["0", "auto"])
def test_count_that_gunicorn_cannot_use_stops_doctor_and_the_server(host: Host, name: str, value: str) -> None:
    env = host.env | {name: value}

    (finding,) = host.doctor(env=env)

    assert finding["check"] == "server"
    assert name in finding["what"]
    assert host.type("gunicorn --check-config", env).returncode != 0
    fixed = dict(re.findall(r"\b(WEB_\w+)=(\d+)", finding["do"]))
    assert host.doctor(env=host.env | fixed) == []


def test_secret_file_that_every_user_can_read_is_reported_with_its_fix(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "secret key"
    file.write_text(STRONG)
    file.chmod(0o644)
    env = {"FLASK_TRUSTED_HOSTS": "example.com", "FLASK_SECRET_KEY_FILE": str(file)}

    (finding,) = host.doctor(env=env)

    assert finding["check"] == "secret"
    assert host.type(finding["do"]).returncode == 0
    assert host.doctor(env=env) == []


def test_settings_of_a_parent_directory_are_refused(scratch: Host) -> None:
    """The flask command would migrate the other app's database."""
    other = scratch.folder.parent
    (other / ".env").write_text(f"DATABASE_URL=sqlite:///{other}/other.db\n")
    (scratch.folder / "instance" / "myapp.db").unlink()

    done = scratch.type("flask db upgrade")

    assert done.returncode != 0
    assert f"{other}/.env was read, but is not in the project's directory" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout
    assert not (other / "other.db").exists()
    (scratch.folder / ".env").touch()
    assert scratch.type("flask db upgrade").returncode == 0
    assert not (other / "other.db").exists()
    assert (scratch.folder / "instance" / "myapp.db").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-Forwarded-For", "203.0.113.7, 10.0.0.1"), ("X-Forwarded-Host", None), ("X-Forwarded-Port", "8443")],
)
def test_wrong_count_of_proxies_is_named_and_its_cure_mends_it(host: Host, name: str, value: str | None) -> None:
    sound, other = (
        [f"--header={key}: {text}" for key, text in headers.items() if text]
        for headers in (PROXIED, {**PROXIED, name: value})
    )
    assert host.doctor("--port=0", *sound) == []

    (finding,) = host.doctor("--port=0", *other)

    assert finding["check"] == "proxy"
    assert name in finding["what"]
    assert host.doctor("--port=0", *other, env=host.follow(finding["do"], host.env)) == []


def test_taken_port_is_named(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (finding,) = host.doctor(f"--port={port}")
        (same,) = host.doctor("--header=Accept: */*", env=host.env | {"PORT": str(port)})[-1:]

    assert finding["check"] == same["check"] == "server"
    assert str(port) in finding["what"]


def test_folder_that_cannot_be_written_is_named(host: Host) -> None:
    unshare = "unshare --mount --map-root-user"
    if host.type(f"{unshare} true").returncode:
        pytest.skip("this machine lets nobody mount a folder for reading only")
    mount = "mount --bind instance instance && mount -o remount,bind,ro instance"

    (finding, *_more) = host.listed(f"{unshare} bash -euc '{mount} && flask doctor --port 0 \"$@\"' bash")

    assert finding["check"] == "folder"
    assert str(host.folder / "instance") in finding["what"]


def test_setting_that_gunicorn_does_not_read_is_named_and_its_cure_mends_it(scratch: Host) -> None:
    (scratch.folder / ".env").write_text(f"FLASK_SECRET_KEY={STRONG}\n")
    env = {"FLASK_TRUSTED_HOSTS": "example.com"}

    (finding,) = scratch.doctor(env=env)

    assert finding["check"] == "dotenv"
    assert STRONG not in json.dumps(finding)
    assert scratch.listed(f"{finding['do']}\nflask doctor --port 0", env) == []
    served = scratch.type(f"{finding['do']}\ngunicorn --check-config", env)
    assert served.returncode == 0, served.stdout


def test_old_flask_is_named_and_its_cure_mends_it(scratch: Host) -> None:
    run(
        "uv", "pip", "install", "--quiet", "flask==3.0.3", cwd=scratch.folder, VIRTUAL_ENV=str(scratch.folder / ".venv")
    )

    # It lacks settings that other checks read.
    (finding,) = [finding for finding in scratch.doctor() if finding["check"] == "versions"]

    assert scratch.type(finding["do"]).returncode == 0
    assert scratch.doctor() == []


def test_missing_gunicorn_is_named_and_its_cure_mends_it(scratch: Host) -> None:
    run("uv", "pip", "uninstall", "gunicorn", cwd=scratch.folder, VIRTUAL_ENV=str(scratch.folder / ".venv"))

    (finding,) = scratch.doctor()

    assert finding["check"] == "server"
    assert scratch.type(finding["do"]).returncode == 0
    assert scratch.doctor() == []


def test_old_python_is_named_and_its_cure_mends_it(scratch: Host) -> None:
    installed = [version for version in COUNTABLE["python_version"] if has_python(version)]
    if len(installed) < 2:
        pytest.skip("one Python alone on this machine")
    old, new = installed[0], installed[-1]
    run("uv", "sync", "--python", old, cwd=scratch.folder)
    years = json.dumps({old: 2025, new: 2099})

    (finding,) = scratch.listed(f"python -c '{LATER}' '{years}' --port 0")

    assert finding["check"] == "versions"
    assert old in finding["what"]
    done = scratch.type(finding["do"])
    assert done.returncode == 0, done.stdout
    assert scratch.listed(f"python -c '{LATER}' '{years}' --port 0") == []


@pytest.mark.parametrize("database", [name for name in COUNTABLE["database"] if name != "none"])
def test_fault_of_the_database_is_named(make_host: Any, database: str) -> None:
    host: Host = make_host(database=database, proxy_fix=False)

    def named(**env: str) -> dict[str, str]:
        (finding,) = host.doctor(env=host.env | env)
        assert finding["check"] == "database"
        return finding

    behind = named()
    assert behind["do"] == "flask db upgrade"
    assert host.type(behind["do"]).returncode == 0
    assert host.doctor() == []

    assert host.type("flask db downgrade base").returncode == 0
    assert named()["do"] == "flask db upgrade"
    assert host.type("flask db upgrade").returncode == 0

    absent = {"sqlite": f"sqlite:///{host.folder}/absent/app.db"}.get(database)
    down = named(DATABASE_URL=absent or re.sub(r":\d+/", f":{free_port()}/", host.env["DATABASE_URL"]))
    assert "does not answer" in down["what"]
    if not absent:
        assert "does not answer" in named(DATABASE_URL=host.env["DATABASE_URL"] + "_absent")["what"]
    assert host.doctor() == []


def test_forwarded_header_that_is_ignored_is_named(make_host: Any) -> None:
    host: Host = make_host(database="none", proxy_fix=False)

    (finding,) = host.doctor("--port=0", "--header=X-Forwarded-For: 203.0.113.7")

    assert finding["check"] == "headers"
    assert "copier update --trust" in finding["do"]
