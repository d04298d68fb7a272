"""An update loses nothing: a changed answer gives a fresh project, and the owner's work stays.

Most updates here run without the project's suite. Where every byte is that of a fresh project, its suite is the one
that tests/test_suites.py runs; where the owner has changed something, each code that comes out passes its tests once.
"""

import itertools
import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from conftest import COUNTABLE, QUESTIONS, QUICK, ROOT, run
from projects import NEWEST, Projects, answers, commit, conflicts, contents, missing, own, releases, status
from test_suites import SERVERS, empty_database, install

# Another answer to each question whose answers cannot be counted.
SECOND = {
    "project_name": "Ada's “Shop” & more",
    "description": "Sells [engines], slowly.",
    "user_name": "Ada Lovelace",
    "user_email": "ada@example.com",
}


def every_change(values: list[Any]) -> list[Any]:
    """A walk through some values that makes each change from one to another once, and ends where it began."""
    left = {value: [other for other in reversed(values) if other != value] for value in values}
    path, walk = [values[0]], []
    while path:
        if left[path[-1]]:
            path.append(left[path[-1]].pop())
        else:
            walk.append(path.pop())
    return walk[::-1]


def test_walk_makes_every_change_once() -> None:
    for values in (["a", "b"], ["a", "b", "c", "d", "e"]):
        walk = every_change(values)

        assert sorted(itertools.pairwise(walk)) == sorted(itertools.permutations(values, 2))


def expect_fresh(projects: Projects, project: Path, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Compare a project that was just updated with a fresh one, and what git sees with what differs."""
    old, new = contents(projects.fresh(data=before)), contents(projects.fresh(data=after))
    assert contents(project) == new
    assert {line[3:].strip('"') for line in status(project)} == {
        name for name in old.keys() | new.keys() if old.get(name) != new.get(name)
    }
    assert not conflicts(project)


# ── 1. A changed answer gives what a fresh project has ─────────────────────────────────────────────────────────────


def test_every_question_is_tried() -> None:
    assert COUNTABLE.keys() | SECOND.keys() | {"package_name"} == QUESTIONS.keys()


WALKS = {
    **COUNTABLE,
    **{name: [str(QUESTIONS[name]["default"]), second] for name, second in SECOND.items()},
    "project_name": ["My App", SECOND["project_name"]],
}
SOON = ["proxy_fix"]
LATER = [pytest.param(name, marks=pytest.mark.slow) for name in WALKS if name not in SOON]


@pytest.mark.parametrize("name", [*SOON, *LATER])
def test_changed_answer_gives_a_fresh_project(projects: Projects, name: str) -> None:
    walk = every_change(WALKS[name])
    project = projects.project(data={name: walk[0]})

    for before, after in itertools.pairwise(walk):
        projects.update(project, **{name: after})
        expect_fresh(projects, project, {name: before}, {name: after})
        commit(project)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_random_changes_give_a_fresh_project(projects: Projects, seed: int) -> None:
    """Five changes in a row, of one to three answers each, from any answers."""
    dice = random.Random(seed)
    everything = {name: [*values] for name, values in COUNTABLE.items()}
    everything |= {name: ["Plain", second] for name, second in SECOND.items() if name != "user_email"}
    before = {name: dice.choice(values) for name, values in everything.items()}
    project = projects.project(data=before)

    for _ in range(5):
        names = dice.sample(sorted(everything), k=dice.randint(1, 3))
        change = {name: dice.choice(everything[name]) for name in names}
        projects.update(project, **change)
        after = {**before, **change}
        expect_fresh(projects, project, before, after)
        commit(project)
        before = after


def test_package_keeps_its_name(projects: Projects) -> None:
    """A merge cannot follow files that move: docs/updating.md says how to rename it."""
    project = projects.project()

    with pytest.raises(ValueError, match=r"'package_name': Keep myapp: docs/updating\.md says how to rename it\.$"):
        projects.update(project, package_name="other")

    assert status(project) == []


def test_update_that_brings_nothing_says_so(projects: Projects, capfd: pytest.CaptureFixture[str]) -> None:
    project = projects.project()

    projects.update(project)

    assert "Nothing to update: the project has all of" in capfd.readouterr().out
    assert status(project) == []


# ── 2. The owner's work stays ──────────────────────────────────────────────────────────────────────────────────────

# From where to where, with which answer, in which files, and why. Everything else merges.
FACTORY, LAYOUT = "src/myapp/__init__.py", "src/myapp/templates/layout.html"
MODELS = "src/myapp/models.py"
DECLARED = {
    # 0.2.0 brought the tour, with lines just where owners add theirs.
    ("v0.1.0", "v0.2.0", "tour", True): {FACTORY, LAYOUT},
    # 0.3.0 moved them away from there, so that this is the last time.
    ("v0.2.0", "v0.3.0", "tour", True): {FACTORY, LAYOUT},
    # From there to here it is no conflict: the owner's blueprint registers before the tour instead of behind it.
    ("v0.2.0", NEWEST, "tour", True): {FACTORY},
    # MySQL's lines likewise.
    ("v0.1.0", "v0.2.0", "database", "mysql"): {MODELS},
    ("v0.1.0", NEWEST, "database", "mysql"): {MODELS},
    ("v0.2.0", "v0.3.0", "database", "mysql"): {MODELS},
    ("v0.2.0", NEWEST, "database", "mysql"): {MODELS},
}


def expect_owned(
    projects: Projects, project: Path, data: dict[str, Any], *, model: bool, declared: set[str], version: str = NEWEST
) -> None:
    """Compare an updated project of an owner's with a fresh one that the owner changed in the same way."""
    assert conflicts(project) <= declared
    assert not missing(project, model=model)
    other = projects.project(version, data)
    own(other, model=model)
    new, expected = contents(project), contents(other)
    differing = {name for name in new.keys() | expected.keys() if new.get(name) != expected.get(name)}
    # A migration of the tour stays where the owner's builds on it; the report says what to do then.
    history = {name for name in differing if name.startswith("migrations/versions/")}
    assert differing - history <= declared
    if not conflicts(project) and (model or data.get("database") == "none"):
        projects.expect_green(project, *(["upgrade", "migrate"] if history - expected.keys() else []))


@pytest.mark.slow
@pytest.mark.parametrize("model", [True, False])
@pytest.mark.parametrize("name", WALKS)
def test_owners_work_survives_a_changed_answer(projects: Projects, name: str, model: bool) -> None:
    """With a model of their own a database is there; without, it may go."""
    if not model and name != "database":
        pytest.skip("the model makes no difference")
    walk = every_change([value for value in WALKS[name] if not (model and value == "none" and name == "database")])
    project = projects.project(data={name: walk[0]})
    own(project, model=model)
    commit(project)

    for after in walk[1:]:
        projects.update(project, edited=True, **{name: after})
        expect_owned(projects, project, {name: after}, model=model, declared=set())
        commit(project)


# ── 3. Every release upgrades ──────────────────────────────────────────────────────────────────────────────────────

RELEASES = list(releases())
STEPS = list(dict.fromkeys([*itertools.pairwise([*RELEASES, NEWEST]), *((version, NEWEST) for version in RELEASES)]))


def choose(projects: Projects, version: str, kind: str) -> dict[str, Any]:
    """Answers to the questions of a version."""
    questions = projects.questions(version)
    countable = {name: values for name, values in COUNTABLE.items() if name in questions}
    for name, values in countable.items():
        choices = questions[name].get("choices", values)
        offered = choices.values() if isinstance(choices, dict) else choices
        countable[name] = [value for value in values if value in offered]
    dice = random.Random(f"{version} {kind}")
    return {
        "defaults": {},
        "all on": {name: True if True in values else values[-1] for name, values in countable.items()},
        "all off": {name: False if False in values else values[0] for name, values in countable.items()},
        "random": {name: dice.choice(values) for name, values in countable.items()},
    }[kind]


def test_history_is_here() -> None:
    if run("git", "rev-parse", "--is-shallow-repository", cwd=ROOT).stdout.strip() == "true":
        pytest.skip("a shallow clone knows no releases: git fetch --unshallow")
    assert RELEASES[:2] == ["v0.1.0", "v0.2.0"]


@pytest.mark.slow
@pytest.mark.parametrize("edited", [False, True], ids=["untouched", "edited"])
@pytest.mark.parametrize("kind", ["defaults", "all on", "all off", "random"])
@pytest.mark.parametrize(("old", "new"), STEPS, ids=lambda version: str(version))
def test_release_upgrades(projects: Projects, old: str, new: str, kind: str, edited: bool) -> None:
    data = choose(projects, old, kind)
    model = edited and data.get("database") != "none"
    project = projects.project(old, data)
    if edited:
        own(project, model=model)
        commit(project)
    before = answers(project)

    projects.update(project, new, edited=edited)

    after = answers(project)
    assert before.items() <= after.items()
    if new != "v0.2.0":  # which switched the tour on by itself
        assert {after[name] for name in after.keys() - before.keys()} <= {False, "none"}
    if edited:
        declared = {file for answer in after.items() for file in DECLARED.get((old, new, *answer), ())}
        expect_owned(projects, project, after, model=model, declared=declared, version=new)
    else:
        assert not conflicts(project)
        assert contents(project) == contents(projects.fresh(new, after))


@pytest.mark.slow
@pytest.mark.parametrize("version", RELEASES)
def test_suite_of_a_release_passes(projects: Projects, version: str) -> None:
    """Which an untouched project that was updated has, byte for byte."""
    projects.expect_green(projects.fresh(version))


# ── 4. Databases migrate ───────────────────────────────────────────────────────────────────────────────────────────


def migrate(project: Path, url: str) -> None:
    """Install a project, and take a database through its history: one line, up, as the models say, and down again."""
    commands = install(project)

    def flask(*arguments: str) -> str:
        return run(commands / "flask", "db", *arguments, cwd=project, DATABASE_URL=url).stdout

    assert flask("heads").count("(head)") == 1
    try:
        flask("upgrade")
        flask("check")
    finally:
        flask("downgrade", "base")
    run(commands / "pytest", "-q", cwd=project, **QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("database", [name for name in COUNTABLE["database"] if name != "none"])
def test_models_of_a_feature_come_behind_the_owners(projects: Projects, database: str) -> None:
    """And the owner's work passes its tests on the way."""
    project = projects.project(data={"database": "sqlite", "tour": False})
    own(project, model=True)
    commit(project)

    projects.update(project, edited=True, tour=True, database=database)

    assert not conflicts(project)
    assert 'down_revision = "add_product"' in (project / "migrations/versions/tour_guestbook.py").read_text()
    with empty_database(database) if database in SERVERS else nullcontext("") as url:
        migrate(project, url)
    commit(project)
    # The next update sees an edited file, and leaves it alone.
    projects.update(project, edited=True, license="MIT")
    assert not conflicts(project)
    assert 'down_revision = "add_product"' in (project / "migrations/versions/tour_guestbook.py").read_text()


@pytest.mark.slow
def test_database_goes_and_comes_without_a_migration_lost(projects: Projects) -> None:
    project = projects.project(data={"tour": False})
    own(project, model=True)
    commit(project)
    models, migration = project / MODELS, project / "migrations/versions/add_product.py"
    before = models.read_bytes(), migration.read_bytes()

    projects.update(project, edited=True, database="none")
    assert (models.read_bytes(), migration.read_bytes()) == before
    commit(project)
    projects.update(project, edited=True, database="sqlite", tour=True)

    # Both brought this file: a conflict by nature, which keeps the owner's lines.
    assert conflicts(project) == {MODELS}
    assert "class Product(Base):" in models.read_text()
    run("git", "checkout", "HEAD", "--", MODELS, cwd=project)
    assert migration.read_bytes() == before[1]
    migrate(project, "")


# ── 5. Secrets and data stay ───────────────────────────────────────────────────────────────────────────────────────

PRIVATE = (".env", "instance/secret_key", "instance/myapp.db", "instance/myapp.db-wal", "instance/uploads/a.txt")


def test_secrets_and_data_stay_as_they_are(projects: Projects) -> None:
    project = projects.project()
    for name in PRIVATE:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(b"SQLite format 3\0 the owner's " + name.encode())
    before = {name: ((project / name).read_bytes(), (project / name).stat().st_mtime_ns) for name in PRIVATE}

    projects.update(project, database="none", tour=False)

    assert before == {name: ((project / name).read_bytes(), (project / name).stat().st_mtime_ns) for name in PRIVATE}
