"""An update loses nothing: a changed answer gives a fresh project, and the owner's work stays.

Most updates here run without the project's suite. Where every byte is that of a fresh project, its suite is the one
that tests/test_suites.py runs; where the owner has changed something, a sample is installed and run.
"""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import COUNTABLE, QUESTIONS
from projects import Projects, commit, conflicts, contents, status

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
SOON = ["proxy_fix", "tour"]
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
