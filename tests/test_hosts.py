"""Two hosts behind one nginx, set up as the README says, share a secret and a database.

Both are folders of this machine: each has its own project, environment, instance folder and gunicorn.
"""

import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
from conftest import run
from test_deploy import REMOVE, SOCKETS, Machine, Service, ask, blocks, logged, seen, served, set_up, wait_for
from test_deploy import pytestmark as pytestmark
from test_server import VISITS, free_port

VISITS_TO_BOTH = 12  # nginx takes the hosts in turn, but each of its processes does so on its own


@dataclass
class Hosts:
    """The host with nginx, and the other one."""

    first: Service
    second: Service
    port: int

    @property
    def site(self) -> Machine:
        """The host with nginx."""
        return self.first.machine

    def home(self, service: Service) -> Path:
        """The module with the views."""
        return service.machine.root / f"srv/{self.site.name}/src/{self.site.name}/home.py"

    def stylesheet(self, service: Service) -> Path:
        """A static file."""
        return self.home(service).parent / "static/style.css"

    def edit_nginx(self, old: str, new: str) -> None:
        """Change the upstream and reload nginx; return when the requests of the old configuration have finished."""
        root = self.site.root
        children = Path("/proc/{0}/task/{0}/children".format((root / "run/nginx.pid").read_text().strip()))
        before = set(children.read_text().split())
        self.site.edit(root / f"etc/nginx/conf.d/{self.site.name}.conf", (old, new))
        run(root / "bin/nginx", "-s", "reload", cwd=root)
        wait_for(lambda: before.isdisjoint(children.read_text().split()))

    def release(self, service: Service, number: int) -> None:
        """Reload a host with new code and a new stylesheet."""
        home, stylesheet = self.home(service), self.stylesheet(service)
        home.write_text(re.sub(r"RELEASE = \d+", f"RELEASE = {number}", home.read_text()))
        stylesheet.write_text(stylesheet.read_text() + f"/* release {number} */\n")
        service.reload()


def copy_host(first: Machine, port: int) -> Service:
    """Install a second host as the README says; its files have another modification time."""
    root = Path(tempfile.mkdtemp(prefix="deploy-"))
    root.chmod(0o755)
    machine, name = Machine(root, first.name), first.name
    ignored = shutil.ignore_patterns(".venv", "instance")
    shutil.copytree(first.root / "srv", root / "srv", ignore=ignored, copy_function=shutil.copy)
    shutil.copytree(first.root / f"etc/{name}", root / f"etc/{name}")
    project = root / "srv" / name
    unit = project / f"deploy/{name}.service"
    machine.edit(unit, (re.escape(str(first.root)), str(root)), (r"--bind unix:\S+", f"--bind 127.0.0.1:{port}"))
    commands = blocks(project)[0].splitlines()
    machine.type("\n".join(line for line in commands if re.search(r"^cd |^uv sync|\.service ", line)))
    return Service(machine, root / f"etc/systemd/system/{name}.service")


@pytest.fixture(scope="module")
def hosts(template: Path) -> Iterator[Hosts]:
    """The first host serves; the second one is installed."""
    if os.getuid() != 0:
        pytest.skip("only root can become the administrator of a database server")
    if not SOCKETS["postgresql"].is_socket():
        assert "REQUIRE_SERVERS" not in os.environ
        pytest.skip("no PostgreSQL server")
    name, port = f"starter{secrets.token_hex(4)}", free_port()
    try:
        with set_up(template, name, "postgresql") as site:
            home = site.root / f"srv/{name}/src/{name}/home.py"
            home.write_text(home.read_text() + VISITS)
            site.edit(
                site.root / f"etc/nginx/conf.d/{name}.conf",
                (rf"upstream {name} {{", rf"upstream {name} {{\n    server 127.0.0.1:{port};"),
            )
            second = copy_host(site, port)
            try:
                with served(site) as first:
                    yield Hosts(first, second, port)
            finally:
                shutil.rmtree(second.machine.root)
    finally:
        run("bash", "-euc", REMOVE["postgresql"].format(name=name), cwd=Path("/"))


@pytest.fixture
def both(hosts: Hosts) -> Iterator[Hosts]:
    """Both hosts serve."""
    with hosts.second.started():
        yield hosts


@contextmanager
def visitors(site: Machine) -> Iterator[None]:
    """Visit the site in several threads all the time: each request is answered with 200."""
    answers: list[str] = []
    stop = threading.Event()

    def visit(method: str, path: str) -> None:
        while not stop.is_set():
            try:
                response, body = ask(site, path, method, b"x" * 5000 if method == "POST" else None)
                answers.append("200" if response.status == 200 else f"{response.status} {body[:200]!r}")
            except Exception as error:
                answers.append(repr(error))

    with ThreadPoolExecutor(4) as threads:
        try:
            for method in ("GET", "POST"):
                for path in ("/seen", "/seen?seconds=0.5"):
                    threads.submit(visit, method, path)
            yield
        finally:
            stop.set()
    assert set(answers) == {"200"}


def stylesheets(site: Machine) -> set[str]:
    """The URLs of the stylesheet in the pages of both hosts."""
    pages = [ask(site, "/")[1].decode() for _ in range(VISITS_TO_BOTH)]
    return {url for page in pages for url in re.findall(r'"(/static/style\.css\?v=[0-9a-f]+)"', page)}


def test_session_holds_over_both_hosts(both: Hosts) -> None:
    cookie, counts = "", []
    for _ in range(VISITS_TO_BOTH):
        response, body = ask(both.site, "/visits", Cookie=cookie)
        cookie = response.headers["Set-Cookie"].partition(";")[0]
        counts.append(int(body))

    assert counts == list(range(1, VISITS_TO_BOTH + 1))
    for service in (both.first, both.second):
        wait_for(lambda service=service: logged(service, "/visits") > 0)  # type: ignore[misc]


def test_guestbook_is_the_same_on_both_hosts(both: Hosts) -> None:
    form = urlencode({"name": "Ada Lovelace", "message": "The engine has no pretensions."})
    kind = "application/x-www-form-urlencoded"
    posted, _body = ask(both.site, "/tour/guestbook", "POST", form, Content_Type=kind, Origin="https://example.com")
    assert posted.status == 302

    pages = [ask(both.site, "/tour/guestbook")[1].decode() for _ in range(VISITS_TO_BOTH)]

    assert all("The engine has no pretensions." in page for page in pages)
    for service in (both.first, both.second):
        assert logged(service, "/tour/guestbook") > 0


def test_static_url_is_the_same_on_both_hosts(both: Hosts) -> None:
    (url,) = stylesheets(both.site)

    for number in range(VISITS_TO_BOTH):  # each is another URL for the cache of nginx
        response, content = ask(both.site, f"{url}&n={number}")
        assert response.headers["Cache-Control"].endswith("immutable")
        assert content == both.stylesheet(both.first).read_bytes()
    for service in (both.first, both.second):
        assert logged(service, "/static/style.css") > 0


def test_host_is_taken_out_and_put_back_without_losing_a_request(hosts: Hosts) -> None:
    """With nginx's ``down``, as the README says."""
    with visitors(hosts.site):
        with hosts.second.started():
            wait_for(lambda: logged(hosts.second, "/seen") > 10)
            hosts.edit_nginx(rf"server 127\.0\.0\.1:{hosts.port};", f"server 127.0.0.1:{hosts.port} down;")
            answered = logged(hosts.first, "/seen")
            wait_for(lambda: logged(hosts.first, "/seen") > answered + 10)
            before = logged(hosts.second, "/seen")
            wait_for(lambda: logged(hosts.first, "/seen") > answered + 20)
            assert logged(hosts.second, "/seen") == before
        with hosts.second.started():
            hosts.edit_nginx(rf"server 127\.0\.0\.1:{hosts.port} down;", f"server 127.0.0.1:{hosts.port};")
            wait_for(lambda: logged(hosts.second, "/seen") > 10)
            hosts.edit_nginx(rf"server 127\.0\.0\.1:{hosts.port};", f"server 127.0.0.1:{hosts.port} down;")
    hosts.edit_nginx(rf"server 127\.0\.0\.1:{hosts.port} down;", f"server 127.0.0.1:{hosts.port};")


def test_release_on_one_host_after_the_other_serves_the_static_urls_of_both(both: Hosts) -> None:
    site = both.site
    (old_url,) = stylesheets(site)
    old = both.stylesheet(both.first).read_bytes()
    with visitors(site):
        both.release(both.second, 2)
        wait_for(lambda: {seen(site)["release"] for _ in range(VISITS_TO_BOTH)} == {1, 2})
        new = both.stylesheet(both.second).read_bytes()
        (new_url,) = stylesheets(site) - {old_url}

        for url, expected in {old_url: old, new_url: new}.items():
            kept = set()
            for number in range(VISITS_TO_BOTH):
                response, content = ask(site, f"{url}&n=r{number}")
                assert response.status == 200
                assert content in {old, new}
                if response.headers["Cache-Control"] == "no-cache":
                    assert content != expected
                else:
                    assert content == expected, "nobody may keep a file under the URL of another"
                kept.add(response.headers["Cache-Control"])
            assert len(kept) == 2, "both hosts were asked"

        both.release(both.first, 2)
        wait_for(lambda: {seen(site)["release"] for _ in range(VISITS_TO_BOTH)} == {2})

    assert stylesheets(site) == {new_url}
    assert ask(site, new_url)[1] == new
    response, content = ask(site, f"{old_url}&n=last")
    assert (response.status, response.headers["Cache-Control"], content) == (200, "no-cache", new)
