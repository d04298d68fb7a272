"""Each question explains itself, takes every good answer, and refuses every bad one in a clear sentence."""

import json
import os
import re
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import COUNTABLE, QUESTIONS, ROOT, Render, run
from hypothesis import example, given, settings
from hypothesis import strategies as st
from questionnaire import REFUSAL, Questionnaire, shown

FREE_TEXT = QUESTIONS.keys() - COUNTABLE.keys()
YES_OR_NO = [name for name, question in QUESTIONS.items() if question["type"] == "bool"]
CHOICES = [name for name in COUNTABLE if name not in YES_OR_NO]

# What people's scripts, answers files and habits rely on.
PROMISED: dict[str, dict[str, Any]] = {
    "project_name": {"type": "str"},
    "package_name": {"type": "str"},
    "description": {"type": "str"},
    "user_name": {"type": "str", "default": ""},
    "user_email": {"type": "str", "default": ""},
    "license": {
        "type": "str",
        "default": "none",
        "choices": ["none", "MIT", "BSD-3-Clause", "Apache-2.0", "GPL-3.0-or-later"],
    },
    "python_version": {"type": "str", "default": "3.11"},  # its choices: tests/test_pythons.py
    "database": {"type": "str", "default": "sqlite", "choices": ["none", "sqlite", "postgresql", "mysql"]},
    "proxy_fix": {"type": "bool", "default": False},
    "docker": {"type": "bool", "default": "[[ new_project ]]"},
    "ci": {
        "type": "str",
        "default": "[[ 'github' if new_project else 'none' ]]",
        "choices": ["github", "gitlab", "none"],
    },
    "tour": {"type": "bool", "default": "[[ new_project ]]"},
    "git": {"type": "bool", "default": True},
}

ACCEPTED = {
    "project_name": [
        "A",
        "2048",
        "My App",
        'O\'Brien "& Söhne"',
        "日本語",
        "مرحبا",
        "नमस्ते",
        "😀" * 80,
        "👩‍👩‍👧‍👦",
        "e\u0301",
        "a" * 80,
    ],
    "package_name": ["a", "my_app", "app2", "x" * 40, "flask2", "app_2_go"],
    "description": ["x", "A shop. With: commas, # and 'quotes'", "é" * 300],
    "user_name": ["", "Ada Lovelace", "O'Brien, Ada", "李", "a" * 80],
    "user_email": [
        "",
        "ada@example.com",
        "o'brien+shop@mail.example.co.uk",
        "a@xn--bcher-kva.example",
        f"{'a' * 64}@{'b' * 63}.example",
    ],
}
REFUSED = {
    "project_name": {
        "": "Blank: type one, such as My App.",
        "   ": "Blank: type one",
        "\u200b": "Blank: type one",
        "x" * 81: "81 characters: shorten it to 80.",
        "a\nb": "Unprintable character: remove it.",
        "a\tb": "Unprintable",
        "a\x00b": "Unprintable",
        "a\u2028b": "Unprintable",
        "a\u202eb": "Unprintable",
        "a\ud800b": "Unprintable",
        "\ufeffa": "Unprintable",
        " a": "Space at an end: leave it out.",
        "a\u3000": "Space at an end",
        "/tmp/app": "A path or an address: use words.",
        "0.0.0.0": "A path or an address",
    },
    "package_name": {
        "": "Try my_app: only a-z, 0-9 and single underscores, a letter first.",
        "My-App": "Try my_app: only",
        "MyApp": "Try myapp: only",
        "2048": "Try my_app: only",
        "2fa": "Try fa: only",
        "_app": "Try app: only",
        "app_": "Try app: only",
        "my__app": "Try my_app: only",
        "my.app": "Try my_app: only",
        "app\n": "Try app: only",
        "café": "Try caf: only",
        "ａｐｐ": "Try my_app: only",
        "x" * 41: f"Try {'x' * 40}: at most 40 characters.",
        "class": "Try class_app: Python itself uses class.",
        "match": "Try match_app: Python",
        "json": "Try json_app: Python",
        "annotationlib": "Try annotationlib_app: Python",
        "imp": "Try imp_app: Python",
        "flask": "Try flask_app: yours would hide the package flask.",
        "Flask": "Try flask_app: only",
        "tests": "Try tests_app: tests means something else in a project.",
        "test": "Try test_app: test means",
        "migrations": "Try migrations_app: migrations means",
        "com1": "Try com1_app: com1 means",
    },
    "description": {
        "": "Empty: say in short what it is.",
        "x" * 301: "301 characters: shorten it to 300.",
        "a\nb": "Unprintable character: remove it.",
        "a\u2066b": "Unprintable",
        "a ": "Space at an end: leave it out.",
    },
    "user_name": {
        "x" * 81: "81 characters: shorten it to 80.",
        "Ada\nLovelace": "Unprintable character: remove it.",
        "Ada\x1b[31m": "Unprintable",
        " ": "Space at an end: leave it out.",
    },
    "user_email": dict.fromkeys(
        [
            "ada",
            "@example.com",
            "ada@",
            "ada@localhost",
            "ada@example..com",
            "ada@-example.com",
            "ada@example.com.",
            "ada@example.com\n",
            "ada lovelace@example.com",
            '"ada"@example.com',
            "ada@exämple.com",
            "a@b@example.com",
            "Ada <ada@example.com>",
            f"{'a' * 65}@example.com",
            f"a@{'b' * 64}.com",
            f"a@{'b.' * 130}com",
        ],
        "Not an e-mail: try ada@example.com.",
    ),
}


def cases(table: dict[str, Any]) -> list[tuple[str, str]]:
    """Each question of a table with each of its answers."""
    return [(name, answer) for name, answers in table.items() for answer in answers]


# ── The questions themselves ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", PROMISED)
def test_name_type_and_default_stay_as_promised(name: str) -> None:
    choices = COUNTABLE[name] if name in CHOICES else None
    asked = {**QUESTIONS[name], "choices": choices}

    assert {key: asked[key] for key in PROMISED[name]} == PROMISED[name]


@pytest.mark.parametrize("name", QUESTIONS)
def test_question_explains_itself_in_a_glance(name: str) -> None:
    question, *explanation = QUESTIONS[name]["help"].splitlines()

    assert question.endswith("?")
    assert 1 <= len(explanation) <= 2
    assert sum(-(-len(line) // 80) for line in (question, *explanation)) <= 3, "more than three lines of a terminal"
    assert {"type", "default"} <= QUESTIONS[name].keys()


@pytest.mark.parametrize("name", QUESTIONS)
def test_default_can_be_typed(name: str, questionnaire: Questionnaire) -> None:
    default = questionnaire.answer()[name]

    assert questionnaire.answer(**{name: default})[name] == default


def test_no_question_is_untested() -> None:
    assert ACCEPTED.keys() == REFUSED.keys() == FREE_TEXT


# ── Answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "answer"), cases(ACCEPTED), ids=shown)
def test_good_text_is_taken_as_it_is(name: str, answer: str, questionnaire: Questionnaire) -> None:
    assert questionnaire.answer(**{name: answer})[name] == answer


@pytest.mark.parametrize(("name", "answer"), cases(REFUSED), ids=shown)
def test_bad_text_is_refused_in_a_sentence(name: str, answer: str, questionnaire: Questionnaire) -> None:
    sentence = questionnaire.refusal(**{name: answer})

    assert (match := REFUSAL.fullmatch(sentence))
    assert match[1] == name
    assert REFUSED[name][answer] in sentence
    # The line that a person sees on the smallest terminal; before a longer reason stands the name to type.
    assert len(sentence) < 80 or ": Try " in sentence


@pytest.mark.parametrize(("name", "answer"), [(name, value) for name in CHOICES for value in COUNTABLE[name]])
def test_choice_is_taken(name: str, answer: str, questionnaire: Questionnaire) -> None:
    assert questionnaire.answer(**{name: answer})[name] == answer


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("answer", ["", "other", "NONE", "3.10", " MIT"])
def test_other_choice_is_refused_with_the_list(name: str, answer: str, questionnaire: Questionnaire) -> None:
    sentence = f"Invalid choice for '{name}': {answer!r} is not in {COUNTABLE[name]}"

    assert questionnaire.refusal(**{name: answer}) == sentence


@pytest.mark.parametrize("name", YES_OR_NO)
@pytest.mark.parametrize(("word", "meant"), [("yes", True), ("True", True), ("1", True), ("no", False), (False, False)])
def test_words_for_yes_and_no_are_taken(name: str, word: Any, meant: bool, questionnaire: Questionnaire) -> None:
    assert questionnaire.answer(**{name: word})[name] is meant


@pytest.mark.parametrize("name", YES_OR_NO)
@pytest.mark.parametrize("word", ["perhaps", "nope", "", "2", ["yes"]], ids=shown)
def test_other_words_are_no_yes(name: str, word: Any, questionnaire: Questionnaire) -> None:
    """Copier alone would take them for one, and proxy_fix would trust the headers of strangers."""
    assert "Neither yes nor no: type one." in questionnaire.refusal(**{name: word})


# ── The package's name ──────────────────────────────────────────────────────────────────────────────────────────────

PACKAGE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def not_refused(questionnaire: Questionnaire, names: set[str]) -> set[str]:
    """The names that one could give to a package; those that no package can have do not count."""
    names = {name for name in names if PACKAGE.fullmatch(name)}
    taken = questionnaire.answer()
    refused = {*taken["python_names"].split(), *taken["installed_names"].split(), *taken["folder_names"].split()}
    return names - refused


def names_of_python(version: str) -> set[str]:
    """The keywords and standard modules of a Python: the first on the PATH, of pyenv or of uv that runs."""
    code = "import keyword, sys; print(*keyword.kwlist, *keyword.softkwlist, *sys.stdlib_module_names)"
    folders = (os.environ.get("PYENV_ROOT", "~/.pyenv") + "/versions", run("uv", "python", "dir", cwd=ROOT).stdout)
    pythons = [Path(found)] if (found := shutil.which(f"python{version}")) else []
    for folder in folders:
        pythons += Path(folder.strip()).expanduser().glob(f"*{version}.*/bin/python")
    for python in pythons:
        listed = run(python, "-c", code, cwd=ROOT, check=False)
        if listed.returncode == 0:
            return set(listed.stdout.split())
    pytest.skip(f"no Python {version} on this machine")


@pytest.mark.parametrize("version", COUNTABLE["python_version"])
def test_names_of_python_are_refused(version: str, questionnaire: Questionnaire) -> None:
    names = names_of_python(version)

    assert {"class", "match", "json"} < names
    assert not not_refused(questionnaire, names)


@pytest.mark.parametrize("database", COUNTABLE["database"])
def test_names_of_installed_packages_are_refused(
    database: str, render: Render, questionnaire: Questionnaire, tmp_path: Path
) -> None:
    """The names to import by and to install by, and from the lock file those of other systems."""
    project = render(package_name="my_own_app", database=database)
    run("uv", "sync", "--quiet", "--no-install-project", cwd=project)
    code = "import importlib.metadata as m, json; print(json.dumps(m.packages_distributions()))"
    installed = json.loads(run("uv", "run", "--no-sync", "python", "-c", code, cwd=project).stdout)
    locked = re.findall(r'^name = "(.+)"', (project / "uv.lock").read_text(), re.MULTILINE)
    distributions = {re.sub(r"[-_.]+", "_", name).lower() for name in (*locked, *sum(installed.values(), []))}

    assert {"flask", "werkzeug", "python_dotenv", "colorama"} < distributions
    assert not_refused(questionnaire, distributions | installed.keys()) == {"my_own_app"}


@pytest.mark.parametrize("name", ["flit_core", "pip", "pkg_resources", "setuptools", "waitress", "wheel"])
def test_names_of_tools_that_come_otherwise_are_refused(name: str, questionnaire: Questionnaire) -> None:
    """With the build, with an environment by venv, with a command of the README."""
    assert f"Try {name}_app: " in questionnaire.refusal(package_name=name)


@pytest.mark.parametrize(
    ("folder", "project_name", "package_name"),
    [
        ("myapp", "Myapp", "myapp"),
        ("my-app", "My App", "my_app"),
        ("my.great_app-v2", "My Great App V2", "my_great_app_v2"),
        ("flask", "Flask", "flask_app"),
        ("test", "Test", "test_app"),
        ("class", "Class", "class_app"),
        ("con", "Con", "con_app"),
        ("2048", "2048", "app_2048"),
        ("2048" * 20, "2048" * 20, "app_" + "2048" * 9),
        ("Über Café", "Über Café", "ber_caf"),
        ("日本", "日本", "app"),
        ("O'Brien", "O'Brien", "obrien"),
        ("---", "My App", "my_app"),
        ("\u200b", "My App", "my_app"),
        ("a\n\u202e\udcffb", "Ab", "ab"),
        ("😀" * 63, "😀" * 63, "app"),
        ("ab" * 60, "Ab" + "ab" * 39, "ab" * 20),
    ],
    ids=shown,
)
def test_names_come_from_the_folder(
    folder: str, project_name: str, package_name: str, questionnaire: Questionnaire
) -> None:
    answers = questionnaire.answer(folder)

    assert (answers["project_name"], answers["package_name"]) == (project_name, package_name)


@pytest.mark.parametrize(
    ("project_name", "package_name"),
    [
        ("Ada's Shop", "adas_shop"),
        ("Flask", "flask_app"),
        ("2048", "app_2048"),
        ("...", "app"),
        ("Über Café", "cafe"),
        ("x" * 80, "x" * 40),
    ],
    ids=shown,
)
def test_package_is_named_after_the_project(project_name: str, package_name: str, questionnaire: Questionnaire) -> None:
    """After the folder where the project's name is not ASCII."""
    assert questionnaire.answer("cafe", project_name=project_name)["package_name"] == package_name


LETTERS = st.characters(codec="utf-8", exclude_characters="/\x00")
FOLDERS = st.text(LETTERS, min_size=1, max_size=60).filter(lambda name: name not in {".", ".."})


@given(folder=FOLDERS)
@example(folder="\u200b")
@example(folder="0" * 100)
@settings(deadline=None)
def test_any_folder_gives_good_defaults(questionnaire: Questionnaire, folder: str) -> None:
    """Every default passes through its own validator, or Copier would refuse it."""
    assert not questionnaire.refusal(folder)


@given(folder=FOLDERS, project_name=st.text(max_size=90))
@settings(deadline=None)
def test_any_project_gives_a_good_package_name(questionnaire: Questionnaire, folder: str, project_name: str) -> None:
    assert "'package_name'" not in questionnaire.refusal(folder, project_name=project_name)


@given(
    name=st.text(max_size=60) | st.text("aA0_-. ", max_size=60) | st.sampled_from(["Flask", "CLASS", "Test", "com1"])
)
@settings(deadline=None)
def test_offered_name_is_good(questionnaire: Questionnaire, name: str) -> None:
    if sentence := questionnaire.refusal(package_name=name):
        offer = sentence.split(": ")[1].removeprefix("Try ")
        assert not questionnaire.refusal(package_name=offer)


@given(text=st.text(max_size=310), name=st.sampled_from(sorted(FREE_TEXT)))
@settings(deadline=None, max_examples=200)
def test_any_text_is_taken_as_it_is_or_refused_in_a_sentence(
    questionnaire: Questionnaire, text: str, name: str
) -> None:
    if sentence := questionnaire.refusal(**{name: text}):
        assert (match := REFUSAL.fullmatch(sentence))
        assert match[1] == name
    else:
        assert questionnaire.answer(**{name: text})[name] == text
        assert not {unicodedata.category(character) for character in text} & {"Cc", "Cs", "Zl", "Zp"}


# ── As people give them ─────────────────────────────────────────────────────────────────────────────────────────────

BAD = {
    **{name: next(answer for answer in answers if answer) for name, answers in REFUSED.items()},
    **dict.fromkeys(COUNTABLE, "perhaps"),
}


def copy(*options: str, template: Path, cwd: Path) -> tuple[int, list[str]]:
    """The exit status and the output of ``copier copy``, as a script calls it."""
    command = (sys.executable, "-m", "copier", "copy", "--defaults", "--skip-tasks", "--quiet")
    done = run(*command, *options, template, "myapp", cwd=cwd, check=False)
    return done.returncode, done.stdout.splitlines()


def test_good_answers_arrive(render: Render) -> None:
    answers = {name: choices[-1] for name, choices in COUNTABLE.items()} | {
        "project_name": "Ada's Shop",
        "package_name": "shop",
        "description": "Sells engines.",
        "user_name": "Ada Lovelace",
        "user_email": "ada@example.com",
        "license": "MIT",
        "python_version": "3.13",
        "database": "postgresql",
        "proxy_fix": True,
        "docker": False,
        "ci": "gitlab",
        "tour": False,
        "git": False,
    }
    written = yaml.safe_load((render(**answers) / ".copier-answers.yml").read_text(encoding="utf-8"))

    assert answers.keys() == QUESTIONS.keys()
    assert {name: answer for name, answer in written.items() if not name.startswith("_")} == answers


@pytest.mark.parametrize("name", BAD)
def test_bad_answer_writes_nothing(name: str, render: Render, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"for (question )?'{name}': "):
        render(**{name: BAD[name]})

    assert not (tmp_path / "myapp").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("package_name", r"Validation error for question 'package_name': Try my_app: .+"),
        ("git", r"Validation error for question 'git': .+: type one\."),
        ("database", r"Invalid choice for 'database': 'perhaps' is not in \['none', .+\]"),
    ],
    ids=["package_name", "git", "database"],
)
@pytest.mark.parametrize("way", ["--data", "--data-file"])
def test_command_ends_with_the_sentence(way: str, name: str, sentence: str, template: Path, tmp_path: Path) -> None:
    answer = {**BAD, "package_name": "My App"}[name]
    file = tmp_path / "answers.yml"
    file.write_text(yaml.safe_dump({name: answer}))
    value = f"{name}={answer}" if way == "--data" else str(file)

    status, output = copy(way, value, template=template, cwd=tmp_path)

    assert status
    assert re.fullmatch(f"ValueError: {sentence}", output[-1])
    assert not (tmp_path / "myapp").exists()


@pytest.mark.parametrize("value", ["[Shop, Engines]", "{a: b}", "null"])
def test_answer_of_another_type_is_refused(value: str, template: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.yml").write_text(f"project_name: {value}\n")

    status, output = copy("--data-file", "answers.yml", template=template, cwd=tmp_path)

    assert status
    assert re.search(r"Could not convert .+ to string|Invalid answer .+ to question \"project_name\"", output[-1])
    assert not (tmp_path / "myapp").exists()


def test_numbers_in_a_file_are_texts_to_us(template: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.yml").write_text("project_name: 2048\npython_version: 3.12\ngit: off\n")

    assert copy("--data-file", "answers.yml", template=template, cwd=tmp_path) == (0, [])

    written = yaml.safe_load((tmp_path / "myapp/.copier-answers.yml").read_text())
    assert (written["project_name"], written["python_version"], written["git"]) == ("2048", "3.12", False)


def test_answers_from_a_persons_own_settings(render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.yml"
    file.write_text("defaults:\n  user_name: Ada Lovelace\n  user_email: ada@example.com\n")
    monkeypatch.setenv("COPIER_SETTINGS_PATH", str(file))

    written = yaml.safe_load((render() / ".copier-answers.yml").read_text())

    assert (written["user_name"], written["user_email"]) == ("Ada Lovelace", "ada@example.com")


def test_bad_answer_from_a_persons_own_settings_is_refused(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.yml"
    file.write_text("defaults:\n  user_email: nowhere\n")
    monkeypatch.setenv("COPIER_SETTINGS_PATH", str(file))

    with pytest.raises(ValueError, match="'user_email': Not an e-mail: try ada@example.com."):
        render()
    assert not (tmp_path / "myapp").exists()
