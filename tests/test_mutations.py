"""A test of the tests: each fault that is planted in the template turns a part of the proof red.

A mutation is one text of one file in place of another. Most must be noticed by the checks of a project that is made
from the damaged template; the others name the test of this repository that must fail. A mutation that nothing notices
is a test that is missing.
"""

import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, run, working_copy
from questionnaire import Questionnaire
from test_pairs import LOOKS
from test_suites import BIN, install

APP = "template/src/[[ package_name ]]"
TOUR = f"{APP}/[% if tour %]tour[% endif %]"
MIGRATIONS = "template/[% if sqlalchemy %]migrations[% endif %]"
# The form of a project whose own checks should notice.
ANSWERS: dict[str, Any] = {"database": "sqlite", "proxy_fix": True, "tour": True}


@dataclass(frozen=True)
class Mutation:
    """A fault: in a file, ``new`` stands for ``old``; without both, the file is not there.

    :param by: the tests of this repository that notice, for pytest; else the checks of the project that is made.
    """

    file: str
    old: str = ""
    new: str = ""
    by: str = ""


MUTATIONS = {
    # Registries: a line is lost.
    "no cross-site check": Mutation(f"{APP}/__init__.py.jinja", "    csrf.init_app(app)\n"),
    "no error pages": Mutation(f"{APP}/__init__.py.jinja", "    errors.init_app(app)\n"),
    "no static hashes": Mutation(f"{APP}/__init__.py.jinja", "    assets.init_app(app)\n"),
    "no logging": Mutation(f"{APP}/__init__.py.jinja", "    logs.init_app(app)\n"),
    "no health checks": Mutation(f"{APP}/__init__.py.jinja", "    health.init_app(app)\n"),
    "no security headers": Mutation(f"{APP}/__init__.py.jinja", "    security.init_app(app)\n"),
    "no proxy": Mutation(f"{APP}/__init__.py.jinja", "    proxy.init_app(app)\n"),
    "no secret": Mutation(f"{APP}/__init__.py.jinja", "    secret.init_app(app)\n"),
    "no home page": Mutation(f"{APP}/__init__.py.jinja", "    app.register_blueprint(home.bp)\n"),
    "a view less": Mutation(f"{TOUR}/__init__.py.jinja", "    uploads,\n", by="test_pairs.py -k GPL"),
    "a command less": Mutation("template/pyproject.toml.jinja", 'secret-key = "[[ package_name ]].cli:secret_key"\n'),
    "a dependency less": Mutation("template/pyproject.toml.jinja", '    "python-dotenv>=1.1.0",\n'),
    "a dependency more": Mutation(
        "template/pyproject.toml.jinja", '    "python-dotenv', '    "requests>=2",\n    "python-dotenv'
    ),
    # Settings: misspelt, or unsafe.
    "misspelt setting": Mutation(f"{APP}/settings.py.jinja", "SESSION_COOKIE_SAMESITE=", "SESSION_COOKIE_SAME_SITE="),
    "no limit for bodies": Mutation(f"{APP}/settings.py.jinja", "MAX_CONTENT_LENGTH=16", "MAX_CONTENT_LENGTH=1600"),
    "cookie over plain HTTP": Mutation(f"{APP}/settings.py.jinja", "SECURE=not app.debug", "SECURE=False"),
    "cookie across sites": Mutation(f"{APP}/settings.py.jinja", 'SAMESITE="Lax"', 'SAMESITE="None"'),
    "two proxies": Mutation(f"{APP}/settings.py.jinja", "PROXY_FIX_X_FOR=1", "PROXY_FIX_X_FOR=2"),
    "all-digit key is a number": Mutation(
        f"{APP}/settings.py.jinja", '"SECRET_KEY", "SECRET_KEY_FILE"', '"SECRET_KEY_FILE"'
    ),
    "False is true": Mutation(f"{APP}/settings.py.jinja", 'case "false" | "no" | "off"', 'case "no" | "off"'),
    "hosts are not trusted by name": Mutation(f"{APP}/settings.py.jinja", "[as_host(host) for", "[host for"),
    "stale connections": Mutation(
        f"{APP}/[% if sqlalchemy %]database.py[% endif %].jinja",
        "if connection.closed or has_data(connection):",
        "if connection.closed:",
        by="test_databases.py -m slow -k 'costs_nobody and postgresql'",
    ),
    # Secrets.
    "constant secret": Mutation(f"{APP}/secret.py.jinja", "os.urandom(32).hex()", '"5eed" * 16'),
    "short secret": Mutation(f"{APP}/secret.py.jinja", "MINIMUM_BYTES = 16", "MINIMUM_BYTES = 1"),
    "weak fallback": Mutation(
        f"{APP}/secret.py.jinja", '        refuse_weak(fallback, "FLASK_SECRET_KEY_FALLBACKS")', "        pass"
    ),
    "secrets in git": Mutation("template/.gitignore.jinja", ".env\n", by="test_files.py -k out_of_git"),
    "a draft on a full disk": Mutation(
        f"{APP}/secret.py.jinja", "        Path(draft).unlink", "        Path(draft).stat"
    ),
    "an empty local key": Mutation(
        f"{APP}/secret.py.jinja",
        '    if not key:\n        raise ConfigError(f"{path} is',
        '    if False:\n        raise ConfigError(f"{path} is',
    ),
    "a key that was never expanded": Mutation(f"{APP}/secret.py.jinja", r"openssl.rand|\A(", r"openssl.rand|\A(?!)("),
    "a clock that is ahead": Mutation(f"{APP}/secret.py.jinja", "    app.session_interface = SessionInterface()\n", ""),
    "a clock of any time": Mutation(f"{APP}/secret.py.jinja", " <= CLOCK_SKEW", ""),
    "a session that never expires": Mutation(f"{APP}/secret.py.jinja", "signed and 0 <= ", "signed and "),
    # Security.
    "a header less": Mutation(f"{APP}/security.py", '    "X-Content-Type-Options": "nosniff",\n'),
    "inline scripts": Mutation(
        f"{APP}/settings.py.jinja", "default-src 'self';", "default-src 'self' 'unsafe-inline';"
    ),
    "policy that browsers ignore": Mutation(f"{APP}/security.py", "DIRECTIVE.fullmatch, ", "DIRECTIVE.search, "),
    "policy of the settings not used": Mutation(
        f"{APP}/security.py", '"Content-Security-Policy": policy', '"Content-Security-Policy": "default-src \'self\'"'
    ),
    "HSTS in debug mode": Mutation(f"{APP}/security.py", "headers if app.debug else headers |", "headers |"),
    "untrusted host not logged": Mutation(
        f"{APP}/errors.py",
        '        current_app.logger.warning("Host %r is not in FLASK_TRUSTED_HOSTS", host)\n',
        "        del host\n",
    ),
    "HSTS over HTTP": Mutation(f"{APP}/security.py", '== "https" else', '!= "ftp" else'),
    "header of a view overwritten": Mutation(f"{APP}/security.py", "if name not in present", "if name"),
    "origin is not compared": Mutation(f"{APP}/csrf.py", 'or origin.endswith(f"://{request.host}")', "or bool(origin)"),
    "an origin with a path": Mutation(f"{APP}/csrf.py", "ORIGIN.fullmatch", "ORIGIN.match"),
    "commas in a list": Mutation(f"{APP}/settings.py.jinja", 'value.replace(",", " ")', "value"),
    "limit that is a text": Mutation(
        f"{APP}/settings.py.jinja", "value is None or (type(value) is int and value >= 0)", "value != 0"
    ),
    "no limit of 0": Mutation(f"{APP}/limits.py", "app.config[name] == 0", "app.config[name] == -1"),
    "debug mode after the defaults": Mutation(f"{APP}/settings.py.jinja", '    app.debug = bool(early["DEBUG"])\n', ""),
    "a prefix that browsers reject": Mutation(
        f"{APP}/settings.py.jinja", '"__Host-session" if host_only', '"__Host-session" if True'
    ),
    "settings of a parent directory": Mutation(f"{APP}/settings.py.jinja", "    refuse_other_dotenv()\n", ""),
    "a public tour": Mutation(f"{APP}/settings.py.jinja", 'TOUR=app.debug or bool(early["TESTING"])', "TOUR=True"),
    "a tour that nobody notices": Mutation(f"{APP}/doctor.py.jinja", "    (check_tour, False),\n", ""),
    "same site is the same origin": Mutation(
        f"{APP}/csrf.py", '{"same-origin", "none"}', '{"same-origin", "same-site", "none"}'
    ),
    # Errors and logs.
    "reflected host": Mutation(
        f"{APP}/errors.py", "isinstance(error, SecurityError):\n        host", "not error:\n        host"
    ),
    "error without its response": Mutation(
        f"{APP}/errors.py", "if error.response is not None", "if not error.code and error.response is not None"
    ),
    "API without JSON errors": Mutation(f"{APP}/errors.py", "offered.reverse()", "pass"),
    "layout without URLs": Mutation(
        f"{APP}/errors.py", "isinstance(request.routing_exception, BadRequest)", "isinstance(error, SecurityError)"
    ),
    "malformed request reaches a view": Mutation(f"{APP}/limits.py", "    app.before_request(refuse_malformed)\n"),
    "body left unread": Mutation(f"{APP}/limits.py", "ClosingIterator(response, discard)", "response"),
    "body read beyond the limit": Mutation(f"{APP}/limits.py", "                return\n", "                pass\n"),
    "form limited by its fields": Mutation(f"{APP}/limits.py", "refuse_beyond(limit, content_length or 0)", "pass"),
    "nested JSON is an error of the app": Mutation(f"{APP}/limits.py", "    app.json = JSONProvider(app)\n"),
    "error without its status": Mutation(f"{APP}/errors.py", '"status": error.code, ', ""),
    "error page that may be shared": Mutation(f"{APP}/errors.py", '    response.vary.add("Accept")\n'),
    "forged line": Mutation(f"{APP}/logs.py", '.replace("\\n", "\\\\n")', ""),
    "forged request id": Mutation(f"{APP}/logs.py", "SANE_ID.fullmatch(given)", "given"),
    # Health and the database.
    "health without a limit": Mutation(
        f"{APP}/[% if sqlalchemy %]database.py[% endif %].jinja",
        "if not ready and time.monotonic() > end:",
        "if not ready and not end:",
        by="test_databases.py -m slow -k 'outage and postgresql'",
    ),
    "always healthy": Mutation(f"{APP}/health.py.jinja", "return not problem", "return True"),
    "an outage is an error of the app": Mutation(
        f"{APP}/[% if sqlalchemy %]database.py[% endif %].jinja",
        "    app.register_error_handler(PoolTimeoutError, handle_outage)\n",
    ),
    "every error of the database is an outage": Mutation(
        f"{APP}/[% if sqlalchemy %]database.py[% endif %].jinja", "        raise error\n", "        pass\n"
    ),
    "a pool smaller than the threads": Mutation(
        f"{APP}/[% if sqlalchemy %]database.py[% endif %].jinja", "int(threads) if threads.isdecimal() else 4", "4"
    ),
    "two migrations at once": Mutation(
        f"{MIGRATIONS}/env.py.jinja",
        "pg_try_advisory_xact_lock(hashtext('flask db upgrade'))",
        "true",
        by="test_migrations.py -m slow -k 'same_time and postgresql'",
    ),
    "migrations with a time limit": Mutation(
        f"{MIGRATIONS}/env.py.jinja",
        '    current_app.config["DATABASE_STATEMENT_SECONDS"] = None\n',
        by="test_migrations.py -m slow -k 'time_limit and postgresql'",
    ),
    "no foreign keys": Mutation(
        f"{APP}/[% if sqlalchemy %]database.py[% endif %].jinja", "foreign_keys = ON", "foreign_keys = OFF"
    ),
    "broken migration": Mutation(
        f"{MIGRATIONS}/versions/[% if tour %]tour_guestbook.py[% endif %]", "length=500", "length=50"
    ),
    "models that migrations do not see": Mutation(
        f"{MIGRATIONS}/env.py.jinja", "target_metadata=db.metadata, **", "target_metadata=None, **"
    ),
    "constraints that share a name": Mutation(
        f"{APP}/[% if sqlalchemy %]models.py[% endif %].jinja",
        "uq_%(table_name)s_%(column_0_N_name)s",
        "uq_%(table_name)s_%(column_0_name)s",
    ),
    "constraints that are not compared": Mutation(
        f"{MIGRATIONS}/env.py.jinja",
        '["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"]',
        '["alembic.autogenerate.*"]',
        by="test_models.py -k 'every_constraint and sqlite'",
    ),
    "constraints of columns that are overlooked": Mutation(
        f"{MIGRATIONS}/env.py.jinja", "    show_checks()\n", by="test_models.py -k 'every_constraint and sqlite'"
    ),
    "tables of the models instead of the migrations": Mutation(
        "template/tests/conftest.py.jinja",
        "            command.check(config)\n",
        "            db.create_all()\n",
        by="test_models.py -k 'without_a_migration and sqlite'",
    ),
    "a model without a migration is ready": Mutation(
        f"{APP}/doctor.py.jinja", "            command.check(config)\n", "            pass\n"
    ),
    "an error of the driver is taken for a slow answer": Mutation(
        f"{APP}/health.py.jinja", "except Exception as error", "except OSError as error"
    ),
    "foreign keys while a table is rebuilt": Mutation(
        f"{MIGRATIONS}/env.py.jinja", "keys = OFF", "keys = ON", by="test_migrations.py -k generated_migration"
    ),
    "half a migration": Mutation(
        f"{MIGRATIONS}/env.py.jinja", '("BEGIN IMMEDIATE")', '("SELECT 1")', by="test_migrations.py -k changes_nothing"
    ),
    "a read that waits for a writer": Mutation(
        f"{MIGRATIONS}/env.py.jinja",
        "    if not changes_database():",
        "    if False:",
        by="test_migrations.py -k only_reads",
    ),
    "a collation that a rebuild loses": Mutation(
        f"{MIGRATIONS}/env.py.jinja",
        """["type"].collation = found[1]""",
        """["type"].length = None""",
        by="test_migrations.py -k keeps_its_definition",
    ),
    "a trigger that a rebuild loses": Mutation(
        f"{MIGRATIONS}/env.py.jinja",
        '("trigger", table.name)',
        '("trigger", "")',
        by="test_migrations.py -k is_refused",
    ),
    "rows without their parent": Mutation(
        f"{MIGRATIONS}/env.py.jinja", "if rows and", "if False and", by="test_migrations.py -k without_their_parent"
    ),
    "a path that is read as a setting": Mutation(
        f"{MIGRATIONS}/alembic.ini", "here =\n", by="test_migrations.py -m slow -k any_name"
    ),
    # Static files.
    "files are asked for each time": Mutation(f"{APP}/assets.py", ", immutable", ""),
    "a stale hash is believed": Mutation(f"{APP}/assets.py", 'request.args.get("v") == digest', '"v" in request.args'),
    "errors are kept": Mutation(f"{APP}/assets.py", "self.status_code in {200, 206, 304} and not own", "not own"),
    "an ETag of one host": Mutation(f"{APP}/assets.py", "            self.set_etag(digest)\n", ""),
    "a file hashed in memory": Mutation(
        f"{APP}/assets.py",
        'hashlib.file_digest(file, "sha256")',
        'hashlib.file_digest(__import__("io").BytesIO(file.read()), "sha256")',
    ),
    "a file hashed by each thread": Mutation(f"{APP}/assets.py", "    with LOCK:", "    with suppress():"),
    "a change that nobody sees": Mutation(f"{APP}/assets.py", "check = app.debug or app.testing", "check = app.debug"),
    "a server that checks each file": Mutation(
        f"{APP}/assets.py", "None if check else HASHES", "None if True else HASHES"
    ),
    "a cookie is kept": Mutation(f"{APP}/assets.py", ' or "Set-Cookie" in headers', ""),
    "another file is kept": Mutation(f"{APP}/assets.py", "if sent == (modified // 10**9, size):", "if sent:"),
    "a private file is kept": Mutation(f"{APP}/assets.py", " or self.cache_control.private", ""),
    "a host in mixed case": Mutation(f"{APP}/limits.py", 'environ["HTTP_HOST"].lower()', 'environ["HTTP_HOST"]'),
    # Pages.
    "flash message without a role": Mutation(
        f"{APP}/templates/layout.html.jinja", "'alert' if category == 'error' else 'status'", "'status'"
    ),
    "unescaped name": Mutation(f"{TOUR}/templates/tour/hello.html", "{{ name", "{{ name|safe"),
    "uploads counted first": Mutation(
        f"{TOUR}/uploads.py",
        '    name = secrets.token_hex(8) + "-" + (secure_filename(file.filename)[-80:] or "file")\n'
        "    path = Path(folder(), name)\n    path.write_bytes(content)\n"
        "    # Counted last, as others may upload at the same time.\n"
        "    if len(list(folder().iterdir())) > MAX_FILES:\n",
        "    full = len(list(folder().iterdir())) >= MAX_FILES\n"
        '    name = secrets.token_hex(8) + "-" + (secure_filename(file.filename)[-80:] or "file")\n'
        "    path = Path(folder(), name)\n    path.write_bytes(content)\n    if full:\n",
    ),
    "upload with a path": Mutation(f"{TOUR}/uploads.py", "secure_filename(file.filename)[-80:]", "file.filename[-80:]"),
    # Answers.
    "unescaped project name": Mutation(
        f"{APP}/settings.py.jinja",
        "[[ python_project_name ]]",
        '"[[ project_name ]]"',
        by="test_hostile.py -k carried_exactly",
    ),
    "unescaped description": Mutation(
        "template/pyproject.toml.jinja",
        "[[ description | to_json(ensure_ascii=false) ]]",
        '"[[ description ]]"',
        by="test_hostile.py -k carried_exactly",
    ),
    "unescaped heading": Mutation(
        "template/README.md.jinja",
        "# [[ markdown_project_name ]]",
        "# [[ project_name ]]",
        by="test_hostile.py -k carried_exactly",
    ),
    "a keyword is a name": Mutation(
        "copier.yml", "and as assert async", "and as assert", by="test_questions.py -k names_of_python"
    ),
    "wrong condition": Mutation(
        "template/pyproject.toml.jinja",
        "[% if database == 'postgresql' %]\n    \"psycopg",
        '[% if sqlalchemy %]\n    "psycopg',
        by="test_files.py -k 'no_trace and pairs'",
    ),
    "condition left out": Mutation(
        "template/.env.example.jinja", "[% if proxy_fix %]", "[% if true %]", by="test_files.py -k 'no_trace and pairs'"
    ),
    "a link to nowhere": Mutation(
        "template/README.md.jinja",
        "[LICENSE](LICENSE)",
        "[LICENSE](LICENCE)",
        by="test_files.py -k 'fit_together and pairs'",
    ),
    "a missing file": Mutation(f"{APP}/csrf.py", by="test_files.py -k 'fit_together and pairs'"),
    "a missing test": Mutation("template/tests/test_csrf.py.jinja"),
    "lines not formatted": Mutation(
        f"{APP}/home.py", 'bp = Blueprint("home", __name__)', "bp = Blueprint('home', __name__)"
    ),
    "a wrong type": Mutation(f"{APP}/home.py", "def index() -> str:", "def index() -> int:"),
    # Hooks.
    "tests are not run": Mutation(
        "hooks/after_copy.py",
        'report.stage("tests", lambda: run_tests(report, installed, again))',
        "True",
        by="test_hooks.py -k 'stages_take or failing_suite'",
    ),
    "others' files are committed": Mutation(
        "hooks/after_copy.py", "    if before:\n", "    if False:\n", by="test_hooks.py -k there_before"
    ),
    "an edited file is lost": Mutation(
        "hooks/after_update.py",
        "    for path in kept:\n        restore(path)\n    return kept\n",
        "    return kept\n",
        by="test_after_update.py -k outlives",
    ),
    "a hook that variables of Python change": Mutation(
        "copier.yml", '"-IB" #', '"-B" #', by="test_hooks.py -k leads_no_hook_astray"
    ),
    "an unexpected error costs the stages": Mutation(
        "hooks/stages.py",
        "    except Exception as error:\n        report",
        "    except EOFError as error:\n        report",
        by="test_hooks.py -k unexpected_error",
    ),
    "pip is not tried": Mutation(
        "hooks/stages.py", "if uv and not again", "if False and not again", by="test_hooks.py -k that_uv_cannot_make"
    ),
    "sources found by a glob": Mutation(
        "template/pyproject.toml.jinja",
        "[tool.ruff]\n",
        '[tool.ruff]\nsrc = ["src"]\n',
        by="test_suites.py -k any_name",
    ),
    "a folder's dollar is expanded": Mutation(
        "template/pyproject.toml.jinja",
        'cwd = "." # by default the absolute path, in which poe expands a $\n',
        by="test_suites.py -k any_name",
    ),
    "a history with two ends": Mutation(
        "hooks/migrations.py",
        "if added and not added.parents",
        "if False and not added.parents",
        by="test_after_update.py -k comes_behind",
    ),
    "a conflict is no error": Mutation(
        "hooks/after_update.py",
        "in_ci() and (not merged or red)",
        "in_ci() and red",
        by="test_after_update.py -k conflicts_come_first",
    ),
    "an older project is taken for a new one": Mutation(
        "copier.yml",
        'default: "[[ new_project ]]"',
        "default: true",
        by="test_updates.py -m 'slow or not slow' -k 'upgrades and defaults and untouched'",
    ),
    # Around the app.
    "a proxy is believed that is not there": Mutation(
        "template/gunicorn.conf.py.jinja",
        'forwarded_allow_ips = ""',
        'forwarded_allow_ips = "*"',
        by="test_attacks.py -k orwarded",
    ),
    "health checks refused under a prefix": Mutation(
        "template/gunicorn.conf.py.jinja",
        'os.environ.get("SCRIPT_NAME", "") + req.path',
        "req.path",
        by="test_server.py -k prefix",
    ),
    "a host without its port": Mutation(
        "template/[% if proxy_fix %]deploy[% endif %]/nginx.conf.jinja",
        "Host $host$[[ package_name ]]_port;",
        "Host $host;",
        by="test_deploy.py -m slow -k port_other_than",
    ),
    "errors stored by nginx": Mutation(
        "template/[% if proxy_fix %]deploy[% endif %]/nginx.conf.jinja",
        "    default 1;",
        '    default "";',
        by="test_deploy.py -m slow -k only_a_success",
    ),
    "a client's own request id": Mutation(
        "template/[% if proxy_fix %]deploy[% endif %]/nginx.conf.jinja",
        "proxy_set_header X-Request-ID $request_id;",
        "proxy_set_header X-Request-ID $http_x_request_id;",
        by="test_deploy.py -m slow -k request_id_of_nginx",
    ),
    "a reload that does not load the app first": Mutation(
        "template/[% if proxy_fix %]deploy[% endif %]/[[ package_name ]].service.jinja",
        "gunicorn --check-config",
        "gunicorn --version",
        by="test_deploy.py -m slow -k cannot_be_loaded",
    ),
    "a graceful timeout that no setting changes": Mutation(
        "template/gunicorn.conf.py.jinja",
        'count("WEB_GRACEFUL_TIMEOUT", 30)',
        "30",
        by="test_server.py -k graceful",
    ),
    "a secret that changes in one step": Mutation(
        "template/README.md.jinja",
        "FLASK_SECRET_KEY=old FLASK_SECRET_KEY_FALLBACKS=new ",
        "FLASK_SECRET_KEY=old ",
        by="test_server.py -k in_steps",
    ),
    "an action that can change": Mutation(
        "template/[% if ci == 'github' %].github[% endif %]/workflows/ci.yml.jinja",
        "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1",
        "@v7",
        by="test_ci.py -k 'zizmor or actions_are'",
    ),
    "a job with too many rights": Mutation(
        "template/[% if ci == 'github' %].github[% endif %]/workflows/ci.yml.jinja",
        "permissions: {}",
        "permissions: write-all",
        by="test_ci.py -k 'zizmor or jobs_get'",
    ),
    "an image that runs as root": Mutation(
        "template/[% if docker %]Dockerfile[% endif %].jinja",
        "USER 10001:10001\n",
        "USER root\n",
        by="test_files.py -k 'dockerfile and pairs'",
    ),
}


# What a project checks of itself, the quick parts first, and what is looked at from outside.
CHECKS = (
    (BIN / "ruff", "check"),
    (BIN / "ruff", "format", "--check"),
    (BIN / "mypy",),
    (BIN / "pytest", "-x", "-q"),
    (BIN / "coverage", "run", "-m", "pytest", "-q"),
    (BIN / "coverage", "report"),
    *LOOKS,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this worker makes its damaged projects, in one environment."""
    return tmp_path_factory.mktemp("mutations") / "myapp"


def damage(folder: Path, mutation: Mutation) -> None:
    """Put the fault into a copy of the template."""
    path = folder / mutation.file
    text = path.read_text(encoding="utf-8")
    assert mutation.old in text, "the template has changed: so must the mutation"
    if mutation.old:
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    else:
        path.unlink()


def notice(project: Path, mutated: str = "") -> str:
    """Run a project's own checks, those of the mutated module first, and name the one that fails."""
    install(project, "--quiet")
    module = re.sub(r"\[% .*? %\]", "", Path(mutated).name).partition(".")[0]
    nearest = [(BIN / "pytest", "-x", "-q", test) for test in sorted(project.glob(f"tests/**/test_{module}.py"))]
    for check in (*CHECKS[:2], *nearest, *CHECKS[2:]):
        if run(*check, cwd=project, check=False, **QUICK).returncode:
            return " ".join(map(str, check))
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_noticed(
    name: str,
    template: Path,
    place: Path,
    tmp_path: Path,
    record_property: Any,
) -> None:
    mutation = MUTATIONS[name]
    source = tmp_path / "flask-starter"
    if mutation.by:
        working_copy(template, source)
    else:
        shutil.copytree(template, source, ignore=shutil.ignore_patterns(".git"))
    damage(source, mutation)
    if mutation.by:
        pytest_alone = ("pytest", "-n0", "-x", "-q", "-p", "no:cacheprovider")
        done = run(sys.executable, "-m", *pytest_alone, *shlex.split(f"tests/{mutation.by}"), cwd=source, check=False)
        assert "\nFAILED " in done.stdout, f"{name}: nothing notices\n{done.stdout}"
    else:
        for path in place.glob("*"):
            if path.name not in {".venv", "uv.lock"}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        Questionnaire(source).write(place, **ANSWERS)
        assert notice(place, mutation.file), f"{name}: nothing notices"
    record_property("fault", name)


@pytest.mark.slow
def test_nothing_is_noticed_where_nothing_is_wrong(questionnaire: Questionnaire, tmp_path: Path) -> None:
    """The checks can be green, or the faults would be noticed for no reason of theirs."""
    questionnaire.write(tmp_path, **ANSWERS)

    assert notice(tmp_path) == ""
