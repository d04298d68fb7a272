"""The image and the compose file of a project do on a real engine what the README says of them."""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

import copier
import pytest
from conftest import COUNTABLE, ROOT, Render, checked, run
from test_ci import RUNNER, cloned, jobs, scripts
from test_server import SECRET, free_port, get
from test_suites import SERVERS, empty_database, execute, server

pytestmark = pytest.mark.slow
Make = Callable[..., Path]
# A Python for the base image where an engine cannot fetch the Dockerfile's own.
PYTHON = os.environ.get("DOCKER_PYTHON")
HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
# A user who may do everything in a database.
USER = {
    "postgresql": ["CREATE USER {user} PASSWORD '{password}'", "ALTER DATABASE {name} OWNER TO {user}"],
    "mysql": ["CREATE USER {user} IDENTIFIED BY '{password}'", "GRANT ALL ON {name}.* TO {user}"],
}
# What lies among the code of many a project.
OUT_OF_PLACE = [
    *(".env", "instance/secret_key", "secrets/secret_key", "src/.env", "src/{package}/.env.production"),
    *("src/{package}/instance/secret_key", "src/{package}/app.db", "src/{package}/app.db-wal", "src/app.sqlite3"),
    *("src/{package}/tls/server.key", "src/{package}/tls/server.pem", "src/{package}/.git/history", "migrations/.env"),
]
SLOW = """
import time


@bp.get("/slow")
def slow() -> str:
    print("slow begins", flush=True)
    time.sleep(3)
    return "slow ends"
"""


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    """Skip without a Docker engine, or fail where one is promised."""
    if shutil.which("docker") and run("docker", "version", cwd=ROOT, check=False).returncode == 0:
        return
    assert not os.environ.get("REQUIRE_DOCKER"), "no Docker engine answers"
    pytest.skip("no Docker engine answers")


@pytest.fixture(scope="module")
def make(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Write a project whose image, containers and volumes have a name of its own; remove them in the end."""
    projects = []

    def make(**answers: Any) -> Path:
        folder = tmp_path_factory.mktemp("docker") / f"starter{secrets.token_hex(4)}"
        copier.run_copy(str(template), folder, data=checked(answers), defaults=True, skip_tasks=True, quiet=True)
        projects.append(folder)
        # Compose reads it too: what a build takes on this machine.
        build = {"network": "host", "args": {"PYTHON_VERSION": PYTHON} if PYTHON else {}}
        (folder / "compose.override.yaml").write_text(json.dumps({"services": {"app": {"build": build}}}))
        return folder

    yield make
    for project in projects:
        run("docker", "compose", "down", "--volumes", "--timeout=1", cwd=project, check=False)
        run("docker", "image", "rm", "--force", project.name, cwd=project, check=False)


@pytest.fixture(scope="module")
def project(make: Make) -> Path:
    """A default project with a lock, a slow view, and much that must stay out of an image."""
    project = make()
    run("uv", "lock", cwd=project)
    run("git", "init", cwd=project)
    for name in OUT_OF_PLACE:
        path = project / name.format(package=project.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# out of place")
    home = project / "src" / project.name / "home.py"
    home.write_text(home.read_text() + SLOW)
    return project


@pytest.fixture(scope="module")
def image(project: Path) -> str:
    """The image of that project."""
    run("docker", "compose", "build", cwd=project)
    return project.name


def in_image(image: str, *command: str) -> str:
    """Run a command in an image, as hardened as the app."""
    return run("docker", "run", "--rm", *HARDENED, image, *command, cwd=ROOT).stdout.strip()


@contextmanager
def serving(image: str, *options: str) -> Iterator[str]:
    """Run an image until Docker says that it is healthy, and remove its container at the end."""
    container = run("docker", "run", "--detach", *HARDENED, *options, image, cwd=ROOT).stdout.strip()
    try:
        deadline = time.monotonic() + 120
        while inspect(container, ".State.Health.Status") != "healthy":
            assert inspect(container, ".State.Running") == "true", logs(container)
            assert time.monotonic() < deadline, logs(container)
            time.sleep(0.2)
        yield container
    finally:
        run("docker", "rm", "--force", "--volumes", container, cwd=ROOT)


def inspect(name: str, field: str) -> str:
    """What Docker knows of a container or an image."""
    return run("docker", "inspect", f"--format={{{{{field}}}}}", name, cwd=ROOT).stdout.strip()


def logs(container: str) -> str:
    """What a container has printed."""
    return run("docker", "logs", container, cwd=ROOT).stdout


def shell_blocks(project: Path) -> list[str]:
    """The commands of the README's section."""
    section = re.search(r"^## Run it in a container$(.*?)^## ", (project / "README.md").read_text(), re.M | re.S)
    assert section
    return re.findall(r"^```sh$(.*?)^```$", section[1], re.M | re.S)


def test_image_holds_what_serves_the_app_and_no_more(image: str) -> None:
    names = in_image(image, "find", "/app", "/data", "-not", "-path", "*/site-packages/*").splitlines()
    assert {"/app/gunicorn.conf.py", "/app/migrations/env.py", "/app/.venv/bin/gunicorn"} <= set(names)
    everything = in_image(image, "sh", "-c", "find / -xdev 2>/dev/null || true").splitlines()
    found = {Path(name).name for name in everything}
    assert not found & {Path(name).name for name in OUT_OF_PLACE}
    assert not found & {".env", ".git", "instance", "secret_key", "uv.lock", "pyproject.toml", "flit_core", "pytest"}
    commands = {Path(name).name for name in everything if "/bin/" in name}
    assert not commands & {"uv", "uvx", "gcc", "cc", "make", "git", "ruff", "mypy", "curl"}

    for name in ("flask/app", f"{image}/settings"):  # byte-compiled, and so is what comes with Python
        assert any(re.search(rf"/site-packages/{re.sub('/', '/__pycache__/', name)}\.\S+\.pyc$", n) for n in everything)
    assert any(re.search(r"^/usr/local/lib/python3\.\d+/__pycache__/argparse\.\S+\.pyc$", n) for n in everything)


def test_build_is_shown_what_it_takes_and_no_more(project: Path) -> None:
    python = [f"--build-arg=PYTHON_VERSION={PYTHON}"] if PYTHON else []
    build = ("docker", "build", "--quiet", "--network=host", "--target=build")
    stage = run(*build, *python, ".", cwd=project).stdout.strip()
    names = run("docker", "run", "--rm", stage, "ls", "-A", cwd=project).stdout.split()
    run("docker", "image", "rm", stage, cwd=project)

    made = {".venv", "uv.lock"}
    assert set(names) == made | {"README.md", "gunicorn.conf.py", "migrations", "pyproject.toml", "src"}


def test_app_s_user_is_nobody_special_and_owns_its_data_alone(image: str) -> None:
    assert inspect(image, ".Config.User") == "10001:10001"
    assert "uid=10001(app) gid=10001(app) groups=10001(app)" in in_image(image, "id")
    assert "CapEff:\t0000000000000000" in in_image(image, "cat", "/proc/self/status")
    writable = in_image(image, "sh", "-c", "find / -xdev -writable -not -type l 2>/dev/null || true").splitlines()
    assert [name for name in writable if not name.startswith(("/proc", "/dev", "/tmp"))] == []
    run("docker", "run", "--rm", image, "touch", "/data/file", cwd=ROOT)
    assert run("docker", "run", "--rm", image, "touch", "/app/file", cwd=ROOT, check=False).returncode


def test_container_serves_hardened_and_finishes_its_answers_when_stopped(image: str) -> None:
    port = free_port()
    options = [f"--publish=127.0.0.1:{port}:8000", f"--env=FLASK_SECRET_KEY={SECRET}"]
    # Hosts, and a proxy that a machine's settings hand to each container, must not mislead the health check.
    options += ["--env=FLASK_TRUSTED_HOSTS=example.com", "--env=HTTP_PROXY=http://127.0.0.1:9"]
    with serving(image, *options) as container, ThreadPoolExecutor() as visitor:
        response, page = get(port, Host="example.com")
        assert response.status == 200
        stylesheet = re.search(r'href="(/static/style\.css[^"]*)"', page)
        assert stylesheet
        response, style = get(port, stylesheet[1], Host="example.com")
        assert "immutable" in response.headers["Cache-Control"]
        assert "font-family" in style
        assert get(port)[0].status == 400

        answer = visitor.submit(get, port, "/slow", Host="example.com")
        while "slow begins" not in logs(container):
            assert not answer.done(), answer.result()
            time.sleep(0.05)
        run("docker", "stop", "-t", "30", container, cwd=ROOT)

        assert answer.result()[1] == "slow ends"
        assert inspect(container, ".State.ExitCode") == "0"
        assert "/up" not in logs(container)


def test_container_without_a_secret_says_so_and_ends(image: str) -> None:
    ended = run("docker", "run", "--rm", *HARDENED, image, cwd=ROOT, check=False)

    assert ended.returncode
    assert "Without debug mode the app needs a secret" in ended.stdout


def test_platform_chooses_the_port(image: str) -> None:
    """And the path that it serves the app under; the health check finds it."""
    options = ["--env=PORT=9000", "--env=SCRIPT_NAME=/shop", f"--env=FLASK_SECRET_KEY={SECRET}"]
    with serving(image, *options) as container:
        assert re.search(r"http://(\[::\]|0\.0\.0\.0):9000", logs(container))


def test_lock_decides_what_is_installed(make: Make) -> None:
    """Without one the image makes its own; one that no longer fits is refused."""
    project = make(database="none", license="MIT", tour=False)
    run("docker", "compose", "build", cwd=project)
    with serving(project.name, f"--env=FLASK_SECRET_KEY={SECRET}"):
        pass

    run("uv", "lock", cwd=project)
    metadata = project / "pyproject.toml"
    metadata.write_text(metadata.read_text().replace('"flask>=3.1.1"', '"flask>=3.1.2"'))
    refused = run("docker", "compose", "build", cwd=project, check=False)
    assert refused.returncode
    assert "needs to be updated" in refused.stdout


def test_readme_s_commands_start_the_project_and_keep_its_data(make: Make) -> None:
    """The README's commands as written, except for the port, and with a public tour for its guestbook."""
    project = make()
    port = free_port()
    (project / ".env").write_text(f"PORT={port}\n")
    compose = project / "compose.yaml"
    setting = "    FLASK_SECRET_KEY_FILE:"
    compose.write_text(compose.read_text().replace(setting, f'    FLASK_TOUR: "true"\n{setting}', 1))
    start, look_after = shell_blocks(project)
    run("bash", "-euc", f"umask 077\n{start}", cwd=project)  # as careful people have it

    site = f"http://127.0.0.1:{port}"
    form = urlencode({"name": "Ada Lovelace", "message": "The engine has no pretensions."}).encode()
    with urlopen(Request(f"{site}/tour/guestbook", form, {"Origin": site})) as response:
        assert response.status == 200
    assert "no pretensions" in get(port, "/tour/guestbook")[1]
    assert get(port, "/up/database")[0].status == 200
    assert get(port, Host="evil.example")[0].status == 400

    release, doctor, follow, down = look_after.strip().splitlines()
    wsgi = project / "src" / project.name / "wsgi.py"
    sound = wsgi.read_text()
    wsgi.write_text(f"{sound}\napp.nothing_of_the_kind\n")
    assert "nothing_of_the_kind" in run("bash", "-euc", release, cwd=project, check=False).stdout
    assert get(port)[0].status == 200
    wsgi.write_text(sound)
    run("bash", "-euc", release, cwd=project)
    found = run("bash", "-euc", doctor, cwd=project, check=False).stdout
    assert found.startswith("error: The tour is public.")
    assert found.count("error: ") == 1
    assert "GET /tour/guestbook 200" in run("bash", "-euc", follow.replace("--follow", ""), cwd=project).stdout
    run("bash", "-euc", down, cwd=project)
    with pytest.raises(OSError, match="refused"):
        get(port)
    run("bash", "-euc", start.strip().splitlines()[-1], cwd=project, FLASK_TRUSTED_HOSTS="example.com")
    assert "no pretensions" in get(port, "/tour/guestbook", Host="example.com")[1]
    assert get(port)[0].status == 400


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_container_job_is_green_on_the_first_push(make: Make, tmp_path: Path, ci: str) -> None:
    project = make(ci=ci)
    override = (project / "compose.override.yaml").rename(tmp_path / "compose.override.yaml")
    clone = cloned(project, tmp_path / project.name)
    shutil.copy(override, clone)
    port = free_port()

    printed = [
        run(*RUNNER, script, cwd=clone, **{**variables, "CI": "true", "PORT": str(port)}).stdout
        for script, variables in scripts(jobs(clone)["container"])
    ]

    assert printed[0].endswith("ready\n")
    assert get(port)[0].status == 200
    assert run("git", "status", "--short", cwd=clone).stdout == "?? compose.override.yaml\n"


@pytest.mark.parametrize("database", SERVERS)
def test_image_migrates_and_serves_on_a_database_server(make: Make, tmp_path: Path, database: str) -> None:
    """As compose.yaml runs it, but on this machine's server: the image of one cannot always be had."""
    server(database)
    project = make(database=database)
    run("docker", "compose", "build", cwd=project)
    user = project.name
    port = str(free_port())
    password = tmp_path / "password"
    password.write_text(secrets.token_hex())
    try:
        with empty_database(database) as url:
            address = urlsplit(url)
            name = address.path.removeprefix("/")
            words = {"user": user, "name": name, "password": password.read_text()}
            execute(database, *(statement.format(**words) for statement in USER[database]))
            options = [
                *("--network=host", f"--env=PORT={port}", f"--env=FLASK_SECRET_KEY={SECRET}"),
                "--env=FLASK_TRUSTED_HOSTS=localhost,127.0.0.1",
                f"--env=DATABASE_URL={database}://{user}@{address.hostname}:{address.port}/{name}",
                "--env=FLASK_DATABASE_PASSWORD_FILE=/run/secrets/password",
                f"--volume={password}:/run/secrets/password:ro",
            ]
            flask = ("docker", "run", "--rm", *HARDENED, *options, project.name, "flask")
            assert "Running upgrade" in run(*flask, "db", "upgrade", cwd=project).stdout
            assert run(*flask, "doctor", cwd=project).stdout.strip() == "ready"
            with serving(project.name, *options, "--env=FLASK_TOUR=true"):
                assert get(int(port), "/up/database")[0].status == 200
                assert "0 in the book" in get(int(port), "/tour/guestbook")[1]
    finally:
        execute(database, f"DROP USER IF EXISTS {user}")


@pytest.mark.parametrize("proxy_fix", COUNTABLE["proxy_fix"])
@pytest.mark.parametrize("database", COUNTABLE["database"])
def test_compose_file_is_valid_and_hardened(render: Render, database: str, proxy_fix: bool) -> None:
    project = render(database=database, proxy_fix=proxy_fix)

    services = json.loads(run("docker", "compose", "config", "--format=json", cwd=project).stdout)["services"]

    expected = {"app", "migrate", "database"}
    if database not in SERVERS:
        expected.remove("database")
    if database == "none":
        expected.remove("migrate")
    assert services.keys() == expected
    for name in expected - {"database"}:
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
        assert services[name]["environment"]["FLASK_SECRET_KEY_FILE"] == "/run/secrets/secret_key"
    assert [port["host_ip"] for service in services.values() for port in service.get("ports", [])] == ["127.0.0.1"]
    waits = {
        (name, other): dependency["condition"]
        for name, service in services.items()
        for other, dependency in service.get("depends_on", {}).items()
    }
    order = {("app", "migrate"): "service_completed_successfully", ("migrate", "database"): "service_healthy"}
    assert waits == {pair: condition for pair, condition in order.items() if expected.issuperset(pair)}
