"""What Copier runs once after ``copier update``, in the project, when the merge is done.

It keeps what the merge would lose: files that the template no longer has but the owner had changed, and migrations.
It merges what conflicts only because the owner's lines and those of the template stand side by side.
Then it says what changed, and what conflicts; without conflicts it brings the environment up to date and runs the
tests. The update stands whatever happens here, so this exits non-zero only where a machine reads the result
(``CI`` is set). It changes no file that git ignores.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import migrations
from stages import (
    RED,
    NotDone,
    Report,
    TestsFailed,
    change_folder,
    command_prefix,
    conduct,
    environment,
    in_ci,
    make_environment,
    run_tests,
)

TEMPLATE = Path(__file__).resolve().parents[1]
# What an owner must know first.
KINDS = ("Removed", "Changed", "Deprecated", "Security", "Fixed", "Added")
MOST_NEWS = 12


def git(*words: str) -> bytes:
    """Ask git something about the project."""
    command = ("git", "-c", f"core.hooksPath={os.devnull}", *words)
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment()).stdout


def listed(*words: str) -> list[Path]:
    """Name files of the project, as git lists them."""
    return [Path(os.fsdecode(name)) for name in git(*words, "-z").split(b"\0") if name]


def changed(kinds: str) -> list[Path]:
    """Name the committed files that the update changed, by the letters of git: D for deleted."""
    return listed("diff", "--name-only", "--relative", f"--diff-filter={kinds}", "HEAD")


def unmerged() -> list[Path]:
    """Name the files with conflicts."""
    return listed("diff", "--name-only", "--relative", "--diff-filter=U")


def added() -> list[Path]:
    """Name the files that the update brought."""
    return listed("ls-files", "--others", "--exclude-standard")


def before(path: Path | str) -> bytes:
    """The content of a file before the update, with plain line ends."""
    return git("show", f"HEAD:./{Path(path).as_posix()}").replace(b"\r\n", b"\n")


def restore(path: Path) -> None:
    """Take a file back from the last commit."""
    git("checkout", "HEAD", "--", str(path))


# ── What the merge would lose ──────────────────────────────────────────────────────────────────────────────────────


def keep_migrations() -> tuple[list[Path], list[Path], list[Path]]:
    """Keep the owner's history in one line: the migrations that were kept, that are gone, and that are new."""
    for path in unmerged():
        if path.parent == migrations.FOLDER:
            restore(path)
    deleted = [path for path in changed("D") if path.parent == migrations.FOLDER and path.suffix == ".py"]
    gone = {path: found for path in deleted if (found := migrations.read(before(path).decode("utf-8", "replace")))}
    here = {found.revision: found for found in migrations.read_all(migrations.FOLDER.glob("*.py")).values()}
    known = {**here, **{found.revision: found for found in gone.values()}}
    needed = migrations.ancestors([*here, *(migrations.reached_here() if gone else [])], known)
    kept = [path for path, found in gone.items() if found.revision in needed]
    for path in kept:
        restore(path)
    new = [path for path in added() if path.parent == migrations.FOLDER and path.suffix == ".py"]
    for path in new:
        migrations.put_last(path)
    return kept, [path for path in gone if path not in kept], new


def renamed() -> list[str]:
    """List the constraints that are named after all of their columns now, and were named after the first one."""
    bases = Path("src").glob("*/models.py")
    if not any(b"(column_0_name)" in before(path) and b"(column_0_N_name)" in path.read_bytes() for path in bases):
        return []
    sources = sorted(Path("src").rglob("*.py"))
    return [f"{path}:{line}" for path in sources for line in migrations.nameless(path.read_text("utf-8", "replace"))]


def keep_edited(report: Report, options: argparse.Namespace) -> list[Path]:
    """Keep the files that the template no longer has, where the owner had changed them since it wrote them."""
    deleted = [path for path in changed("D") if path.parent != migrations.FOLDER]
    if not deleted:
        return []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "answers.yml").write_bytes(before(options.answers_file))
        old = report.run("git", "-C", TEMPLATE, "archive", f"--output={folder / 'old.tar'}", options.version_from)
        if old.returncode == 0:
            shutil.unpack_archive(folder / "old.tar", folder / "template")
            copy = ("copy", "--quiet", "--defaults", "--skip-tasks", f"--data-file={folder / 'answers.yml'}")
            old = report.run(sys.executable, "-m", "copier", *copy, folder / "template", folder / "project")
        if old.returncode:
            kept = deleted  # which of them the owner had changed cannot be told
        else:
            kept = [path for path in deleted if not same(folder / "project" / path, before(path))]
    for path in kept:
        restore(path)
    return kept


def same(path: Path, content: bytes) -> bool:
    """Tell whether a file has this content, whatever its line ends."""
    return path.is_file() and path.read_bytes().replace(b"\r\n", b"\n") == content


# A conflict as git writes it: the owner's lines, those of the template before, and those of the template now.
CONFLICT = re.compile(rb"^<{7} .*\n((?:.*\n)*?)\|{7} .*\n((?:.*\n)*?)={7}\r?\n((?:.*\n)*?)>{7} .*\n", re.MULTILINE)


def merge_neighbours(path: Path) -> None:
    """Merge a file that conflicts only because the owner added lines right beside those that the template changed."""
    sides = {stage: git("show", f":{stage}:./{path.as_posix()}") for stage in ("2", "1", "3")}
    if not all(sides.values()):
        return  # not there on each side
    with tempfile.TemporaryDirectory() as folder:
        for stage, content in sides.items():
            Path(folder, stage).write_bytes(content)
        merged = git("merge-file", "-p", "--diff3", *(str(Path(folder, stage)) for stage in sides))
    merged = CONFLICT.sub(beside, merged)
    if merged and b"<<<<<<< " not in merged:
        git("reset", "--quiet", "HEAD", "--", str(path))
        path.write_bytes(merged)


def beside(conflict: re.Match[bytes]) -> bytes:
    """Merge a conflict in which the owner kept all lines, and added some before or behind them."""
    ours, old, new = conflict.groups()
    if old and ours.startswith(old):
        return new + ours[len(old) :]
    if old and ours.endswith(old):
        return ours[: -len(old)] + new
    return conflict[0]


# ── What there is to say ───────────────────────────────────────────────────────────────────────────────────────────


def number(version: str) -> tuple[int, ...]:
    """The release in a version: 0.2.0 for 0.2.0.post3.dev0+abc."""
    release = re.match(r"[\d.]*", version)
    return tuple(int(part) for part in (release[0] if release else "").split(".") if part)


def news(options: argparse.Namespace) -> list[str]:
    """What the changelog says about the versions between, in a line each, what an owner must know first."""
    if options.version_from == options.version_to:
        return []
    first, last = number(options.from_number), number(options.to_number)
    lines = []
    for section in re.split(r"^## ", (TEMPLATE / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)[1:]:
        title = re.match(r"\[(?P<version>.+?)\]", section)
        version = title["version"] if title else ""
        released = first < number(version) <= last
        if released or (version == "Unreleased" and ".post" in options.to_number):
            for group in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
                kind, _, entries = group.partition("\n")
                lines += [(kind.strip(), entry.strip()) for entry in re.findall(r"^- (.+)$", entries, re.MULTILINE)]
    lines.sort(key=lambda line: KINDS.index(line[0]) if line[0] in KINDS else len(KINDS))
    told = [textwrap.shorten(f"{kind}: {entry}", 110, placeholder=" …") for kind, entry in lines[:MOST_NEWS]]
    return [*told, *([f"and {len(lines) - MOST_NEWS} more"] if len(lines) > MOST_NEWS else [])]


class Conflicts(NotDone):
    """Files that a person must look at before anything else."""

    word, colour = "CONFLICTS", RED


def merge(what: str, files: int, conflicts: dict[Path, str]) -> str:
    """Say how the merge went."""
    if conflicts:
        raise Conflicts(f"in {len(conflicts)} of {files} changed files, listed below")
    return f"{what}, {files} file{'s' if files > 1 else ''} changed"


def stays(path: Path) -> str:
    """Say that an edited file was kept."""
    return f"the template has it no more, and you had changed it: keep it, or git rm {shlex.quote(str(path))}"


# The message of the project's tests about models without a migration, and the report's advice.
MODELS_CHANGED = "The models have changed. Write a migration:"
CHECKS_ADVICE = "If it adds a CHECK constraint, correct the rows that break it before flask db upgrade."
MODELS_ADVICE = (
    "flask db migrate writes the missing migration. It compares CHECK constraints too.",
    CHECKS_ADVICE,
)


def do_stages(report: Report, options: argparse.Namespace) -> int:
    """Do one stage after the other, and say what is still to do."""
    report.say()
    kept_migrations, gone_migrations, new_migrations = keep_migrations()
    kept = keep_edited(report, options)
    for path in unmerged():
        merge_neighbours(path)
    files = {*changed("ACDMRT"), *unmerged(), *added(), *kept, *kept_migrations}
    if not files:
        report.say(f"  Nothing to update: the project has all of {options.version_to}.")
        return 0
    conflicts = dict.fromkeys(unmerged(), "keep what is right, and delete the lines <<<<<<<, ======= and >>>>>>>")
    conflicts.update({path: "merge it by hand, and delete it" for path in added() if path.suffix == ".rej"})
    conflicts.update({path: stays(path) for path in kept})

    prefix = command_prefix()
    again = f"{prefix}pytest"
    what = " to ".join(dict.fromkeys((options.version_from, options.version_to)))
    constraints = renamed()
    database = [f"{prefix}flask db upgrade"] if kept_migrations or new_migrations or constraints else []
    if constraints:
        database.insert(0, f'{prefix}flask db migrate -m "Update constraints"')
    if kept_migrations:
        database.insert(0, f'{prefix}flask db migrate -m "Undo {kept_migrations[0].stem}"')
    if not Path("migrations", "env.py").exists():
        database = []
    migration_first = bool((kept_migrations or constraints) and database)

    def install() -> str:
        if conflicts:
            raise NotDone("the conflicts come first", "uv sync")
        return make_environment(report, options.python, again=True)

    def test() -> str:
        if conflicts:
            raise NotDone("the conflicts come first", again)
        if migration_first:
            raise NotDone("the migration comes first", again)
        try:
            return run_tests(report, installed, again)
        except TestsFailed as failed:
            if MODELS_CHANGED not in report.tail():
                raise
            models.extend(MODELS_ADVICE)
            migrate = (f'{prefix}flask db migrate -m "what changed"', f"{prefix}flask db upgrade")
            raise TestsFailed("the models have changes without a migration", *migrate, *failed.later) from None

    models: list[str] = []
    merged = report.stage("merge", lambda: merge(what, len(files), conflicts))
    concerned = files != {Path(options.answers_file)}
    tested = red = False
    if concerned and options.skip == "no":
        installed = report.stage("environment", install)
        report.todo += database
        tested = report.stage("tests", test)
        red = installed and not tested and not migration_first
    else:
        report.todo += database

    if not concerned:
        report.say("\nNothing in it concerns this project.")
    for title, lines in (
        ("Conflicts, first of all:", [f"{path}: {advice}" for path, advice in sorted(conflicts.items())]),
        (f"New since {options.version_from}:", news(options)),
        ("Migrations:", about_migrations(kept_migrations, gone_migrations, bool(database))),
        ("Constraints:", about_constraints(constraints)),
        ("Models:", models),
    ):
        if lines:
            report.say("\n".join(("", title, *(f"  {line}" for line in lines))))
    if red:
        report.log_matters = True
        report.say(f"\nThe end of the log:\n\n{report.tail()}\n\nAll of it: {report.log}")
        report.say(report.paint(f"The tests fail, the update stands. Run them again: {again}", RED))

    report.say("\nNext:")
    commit = f'git commit -m "Update from flask-starter {options.version_to}"'
    steps = [*report.todo, "git add --all .", commit]
    if concerned:
        steps.append("# then restart what serves the app")
    for step in (*change_folder(), *steps):
        report.say(f"  {step}")
    return int(in_ci() and (not merged or red))


def about_migrations(kept: list[Path], gone: list[Path], goes_on: bool) -> list[str]:
    """Say which migrations stay although the template has them no more, and how one that is gone comes back."""
    lines = [f"{path} stays: a database has gone through it, or another migration builds on it" for path in kept]
    if kept and not goes_on:
        lines.append("The database and its data stay as they are; delete them when nobody needs them.")
    for path in gone:
        lines.append(f"{path} is gone. If a database went through it: git restore {shlex.quote(str(path))}")
    return lines


def about_constraints(places: list[str]) -> list[str]:
    """Say which constraints get another name, and how to keep the one that they have in the database."""
    if not places:
        return []
    return [
        *places,
        "They are now named after all of their columns. flask db migrate renames them in the database.",
        CHECKS_ADVICE,
        "If MySQL says that a foreign key needs the index: create the new one before the old one is dropped.",
        'To keep the old name instead, add name="uq_<table>_<first column>" in the model (index: "ix_…").',
    ]


def main() -> int:
    """Read what Copier tells, and do the stages."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--from", dest="version_from", required=True)
    parser.add_argument("--to", dest="version_to", required=True)
    parser.add_argument("--from-number", required=True)
    parser.add_argument("--to-number", required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--answers-file", required=True)
    parser.add_argument("--skip", choices=["yes", "no"], required=True)
    options = parser.parse_args()
    return conduct(lambda report: do_stages(report, options), "The merge is done: git diff shows it.", 130 * in_ci())
