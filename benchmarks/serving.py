"""What the written project costs over bare Flask: requests a second, start-up, memory.

    python benchmarks/serving.py [--rounds 15] [--requests 400]

It writes a project with the default answers and puts a bare Flask app beside it, which has a secret and renders the
same template, but has no headers, request ids, error pages, hashed URLs or trusted hosts; with Flask-SQLAlchemy, for
the pages that use a database. gunicorn serves both on loopback, by the project's configuration and with its access log,
with one worker of four threads. Each round measures one after the other, in turn, so that a slow moment of the machine
falls on both; what counts is the median of the rounds' ratios:

home page
    against the same page of the bare app; goal: 0.92 of its requests a second.
/query
    the same page after one query to SQLite, through Flask-SQLAlchemy in both apps; goal: 0.92.
/up
    against a bare view that returns a string; goal: 0.90.
start-up
    importing the project and ``create_app()``, in CPU time, against importing the same packages and making a bare app
    with the same database; goal: no more than 1.08 times.
memory
    the resident memory of a worker that has answered, against a bare worker that imports the same packages; goal: no
    more than 5 MiB above.
url_for
    CPU time for the URL of one static file of 3,000, against one of 100; goal: no more than 1.10 times.
worker restarts
    /up at full load with the project's own configuration, against workers that never restart; goal: 0.95. Takes wrk.

Beside requests a second stands the server's CPU time for one request. It does not depend on the client or on what
else the machine does, so that it is the number to trust where the two disagree.

``wrk`` makes the load where it is installed, else a small client in here; both are bounded in time. The exit status is
0 whatever comes out: this is a measurement, not a test. It takes Linux, the standard library, and ``copier`` and
``uv`` on the PATH, as ``uv run python benchmarks/serving.py`` has them.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
CONNECTIONS = 4
SLICE_SECONDS = 20  # no slice may take longer
CORES = sorted(os.sched_getaffinity(0))
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "DATABASE_", "VIRTUAL_"))},
    "FLASK_SECRET_KEY": "3f1c8a5e9b7d20463f1c8a5e9b7d2046",
    "FLASK_TRUSTED_HOSTS": "127.0.0.1",
}
BARE = """
import platform
from importlib.metadata import version

from flask import Flask, render_template
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    pass


app = Flask(__name__, root_path="src/myapp")
app.config.update(SECRET_KEY="3f1c8a5e9b7d20463f1c8a5e9b7d2046", APP_NAME="Myapp")
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///bare.db"
db = SQLAlchemy(app, model_class=Base)
VERSIONS = {"flask_version": version("flask"), "python_version": platform.python_version()}


@app.get("/", endpoint="home.index")
def home():
    return render_template("home.html", **VERSIONS)


@app.get("/query")
def query():
    db.session.scalar(text("SELECT 1"))
    return render_template("home.html", **VERSIONS)


@app.get("/up")
def up():
    return "up"


@app.get("/tour/", endpoint="tour.index")  # which the page links to
def tour():
    return "tour"
"""
QUERY = """
from sqlalchemy import text

from .database import db


@bp.get("/query")
def query() -> str:
    db.session.scalar(text("SELECT 1"))
    return index()
"""
URLS = """
import pathlib, sys, tempfile, time
import myapp

number = int(sys.argv[1])
app = myapp.create_app()
with tempfile.TemporaryDirectory() as app.static_folder, app.test_request_context(base_url="http://127.0.0.1"):
    names = [f"{number}.css" for number in range(number)]
    for name in names:
        pathlib.Path(app.static_folder, name).touch()
    for turn in range(10_000 // number + 2):
        if turn == 1:
            start = time.process_time()
        for name in names:
            app.url_for("static", filename=name)
    print((time.process_time() - start) / number / turn)
"""
START_UP = "import time; start = time.process_time(); {}; print(time.process_time() - start)"
BARE_START = START_UP.format("import bare")
APP_START = START_UP.format("import myapp; myapp.create_app()")


@dataclass
class Server:
    """gunicorn's one worker."""

    worker: int
    port: int

    def cpu(self) -> float:
        """The seconds of CPU time that the worker's threads have had."""
        return (
            sum(
                int(task.joinpath("schedstat").read_text().split()[0])
                for task in Path(f"/proc/{self.worker}/task").iterdir()
            )
            / 1e9
        )

    def resident(self) -> float:
        """The worker's resident memory in MiB."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found
        return int(found[1]) / 1024


def make_project(folder: Path) -> Path:
    """Write a project with the default answers, its environment, and the bare app."""
    project = folder / "myapp"
    copier = ("copier", "copy", "--trust", "--defaults", "--skip-tasks", "--quiet", "--vcs-ref", "HEAD")
    commands = ((*copier, str(ROOT), str(project)), folder), (("uv", "sync", "--quiet", "--no-dev"), project)
    for command, where in commands:
        done = subprocess.run(command, cwd=where, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{command} exits {done.returncode}:\n{done.stderr}")
    (project / "bare.py").write_text(BARE)
    with (project / "src" / "myapp" / "home.py").open("a") as home:
        home.write(QUERY)
    python = project / ".venv" / "bin" / "python"
    subprocess.run([python, "-m", "compileall", "-q", project], check=True)  # as an image has it
    return project


@contextmanager
def serving(project: Path, app: str) -> Iterator[Server]:
    """Serve an app until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = project / f"{app.partition('.')[0]}.log"
    options = ("--workers=1", "--threads=4", "--keep-alive=60", "--max-requests=0")
    with log.open("w") as output:
        master = subprocess.Popen(
            [project / ".venv" / "bin" / "gunicorn", *options, f"--bind=127.0.0.1:{port}", app],
            cwd=project,
            env=ENVIRONMENT,
            stdout=output,
            stderr=output,
        )
    try:
        os.sched_setaffinity(master.pid, CORES[:1])
        for _ in range(300):
            try:
                Client(port, "/").ask(1)
                break
            except OSError:
                time.sleep(0.1)
        else:
            sys.exit(f"{app} does not start:\n{log.read_text()}")
        children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
        os.sched_setaffinity(int(children[0]), CORES[:1])
        yield Server(int(children[0]), port)
    finally:
        master.terminate()
        master.wait(20)


class Client:
    """Some connections that ask for one page again and again."""

    def __init__(self, port: int, path: str) -> None:
        self.port = port
        self.request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/html\r\n\r\n".encode()
        with self.connect() as first:
            first.sendall(self.request)
            answer = first.recv(65536)
            head, _, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\nContent-Length: (\d+)", head)
            assert b" 200 " in head.partition(b"\r\n")[0], head
            assert length
            self.size = len(head) + 4 + int(length[1])  # the same for each answer

    def connect(self) -> socket.socket:
        """Open a connection."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=SLICE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, requests: int) -> float:
        """Ask so many times, and return the answers a second."""
        connections = [self.connect() for _ in range(min(CONNECTIONS, requests))]
        missing = dict.fromkeys(connections, self.size)
        asked, answered, start = len(connections), 0, time.perf_counter()
        for connection in connections:
            connection.sendall(self.request)
        while answered < requests:
            if time.perf_counter() - start > SLICE_SECONDS:
                sys.exit(f"{requests} requests take more than {SLICE_SECONDS} seconds.")
            for connection in select.select(connections, [], [], 1)[0]:
                part = len(connection.recv(65536))
                assert part, "The server has closed a connection."
                missing[connection] -= part
                if not missing[connection]:
                    answered += 1
                    missing[connection] = self.size
                    if asked < requests:
                        asked += 1
                        connection.sendall(self.request)
        rate = answered / (time.perf_counter() - start)
        for connection in connections:
            connection.close()
        return rate


def load(server: Server, path: str, requests: int) -> tuple[float, float]:
    """Make load: requests a second, and the worker's CPU seconds for one."""
    before = server.cpu()
    if wrk := shutil.which("wrk"):
        command = [wrk, "--threads=1", f"--connections={CONNECTIONS}", "--duration=1s"]
        said = subprocess.check_output([*command, f"http://127.0.0.1:{server.port}{path}"], text=True)
        rate, count = (re.search(shape, said) for shape in (r"Requests/sec:\s+([\d.]+)", r"(\d+) requests in"))
        assert rate
        assert count
        return float(rate[1]), (server.cpu() - before) / int(count[1])
    client = Client(server.port, path)
    rate_here = client.ask(requests)
    return rate_here, (server.cpu() - before) / (requests + 1)


def cpu_seconds(project: Path, code: str, *arguments: str) -> float:
    """Run code that measures and prints its own CPU time, in a fresh process."""
    command = [str(project / ".venv" / "bin" / "python"), "-c", code, *arguments]
    return float(subprocess.check_output(command, cwd=project, env=ENVIRONMENT, text=True))


def row(name: str, pairs: list[tuple[float, float]], unit: str, scale: float, goal: str) -> None:
    """Print the medians of both sides and of their ratios."""
    ours, bare = (scale * median(side) for side in zip(*pairs, strict=True))
    ratio = median(our / other for our, other in pairs)
    print(f"{name:<24}{ours:>10.1f}{bare:>10.1f}  {unit:<8}{ratio:>7.2f}  {goal}", flush=True)


def saturated(project: Path, *options: str) -> float:
    """Return the requests per second of two workers at full load, long enough for each to restart."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = "{}:{}".format(*probe.getsockname())
    command = [str(project / ".venv" / "bin" / "gunicorn"), "--workers=2", f"--bind={address}", *options]
    master = subprocess.Popen(
        command, cwd=project, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        os.sched_setaffinity(master.pid, CORES)
        time.sleep(3)
        load = ["wrk", "--threads=1", "--connections=16", "--duration=30s", f"http://{address}/up"]
        rate = re.search(r"Requests/sec:\s+([\d.]+)", subprocess.check_output(load, text=True))
        assert rate
        return float(rate[1])
    finally:
        master.terminate()
        master.wait(40)


def restarts(project: Path) -> None:
    """Compare the project's ``max_requests`` with workers that never restart."""
    if shutil.which("wrk"):
        pairs = [(saturated(project), saturated(project, "--max-requests=0")) for _ in range(3)]
        row("worker restarts", pairs, "req/s", 1, "at least 0.95")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=400)
    options = parser.parse_args()
    os.sched_setaffinity(0, CORES[-1:])  # the client keeps to one core, the worker to another

    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder))
        print(f"{'':<24}{'project':>10}{'bare':>10}  {'':<8}{'ratio':>7}  goal")
        with serving(project, "myapp.wsgi:app") as ours, serving(project, "bare:app") as bare:
            for name, path, goal in (("home page", "/", "0.92"), ("/query", "/query", "0.92"), ("/up", "/up", "0.90")):
                for server in (ours, bare):
                    load(server, path, options.requests)  # warms up
                rates, costs = [], []
                for number in range(options.rounds):
                    first, second = (ours, bare) if number % 2 else (bare, ours)
                    measured = {server.port: load(server, path, options.requests) for server in (first, second)}
                    (rate, cost), (bare_rate, bare_cost) = measured[ours.port], measured[bare.port]
                    rates.append((rate, bare_rate))
                    costs.append((cost, bare_cost))
                row(name, rates, "req/s", 1, f"at least {goal}")
                row("  CPU for a request", costs, "µs", 1e6, f"at most {1 / float(goal):.2f}")
            memory = ours.resident(), bare.resident()
        starts = []
        for number in range(options.rounds + 1):
            codes = (APP_START, BARE_START) if number % 2 else (BARE_START, APP_START)
            taken = {code: cpu_seconds(project, code) for code in codes}
            starts.append((taken[APP_START], taken[BARE_START]))
        row("start-up", starts[1:], "CPU ms", 1000, "at most 1.08")
        urls = [(cpu_seconds(project, URLS, "3000"), cpu_seconds(project, URLS, "100")) for _ in range(3)]
        row("url_for (3000, 100)", urls, "CPU µs", 1e6, "at most 1.10")
        restarts(project)
        print(
            f"{'memory':<24}{memory[0]:>10.1f}{memory[1]:>10.1f}  {'MiB':<8}{memory[0] - memory[1]:>+7.1f}  at most +5"
        )


if __name__ == "__main__":
    main()
