"""What Copier runs once after ``copier copy``: environment, tests, repository.

Nothing here destroys: what was in the folder before stays as it was, and a stage that cannot be done
says why, and which commands do it later. Copier deletes a new project when this exits non-zero, so it does
that only where the project is kept anyway (``--keep=yes``) or where a machine reads the result (``CI`` is set).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import time
from pathlib import Path

from stages import RED, NotDone, Report, change_folder, command_prefix, conduct, in_ci, make_environment, run_tests

TEMPLATE = Path(__file__).resolve().parents[1] / "template"


def held_before(package: str, answers_file: str) -> Path | None:
    """Find a file of the project's folder that Copier did not just write."""
    names = {"[[ package_name ]]": package, "[[ _copier_conf.answers_file ]]": answers_file}
    ours = set()
    for path in TEMPLATE.rglob("*"):
        name = re.sub(r"\[% .*? %\]|\.jinja$", "", str(path.relative_to(TEMPLATE)))
        for placeholder, value in names.items():
            name = name.replace(placeholder, value)
        ours.add(Path(name))
    # A file under our name that is older than the fetched template was kept when Copier asked. Where the
    # template was not fetched, a minute is more than rendering takes.
    written = max((path.stat().st_mtime for path in ours if path.exists()), default=0)
    began = written - min(60, time.time() - Path(__file__).stat().st_mtime)
    for path in Path().rglob("*"):
        kept = path not in ours or path.lstat().st_mtime < began
        if kept and (path.is_symlink() or not path.is_dir()):
            return path
    return None


def make_repository(report: Report, before: Path | None) -> str:
    """Make a repository and a first commit, unless something of the owner's would get into it."""
    commit = 'git commit -m "Start from flask-starter"'
    start = ("git init", "git add .", commit)
    git = shutil.which("git")
    if not git:
        raise NotDone("git is not installed", *start)
    top = report.run(git, "rev-parse", "--show-toplevel", LC_ALL="C")
    if top.returncode == 0:
        raise NotDone(f"the folder is in the repository {top.stdout}", "git add .", f"{commit} .")
    if "not a git repository" not in top.stdout:
        raise report.trouble(top, "git add .", f"{commit} .")
    if before:
        raise NotDone(f"there were files before, such as {before}: look before you add them", *start)
    for role in ("AUTHOR", "COMMITTER"):
        if report.run(git, "-c", "user.useConfigOnly=true", "var", f"GIT_{role}_IDENT").returncode:
            examples = {"user.name": "Ada Lovelace", "user.email": "ada@example.com"}
            missing = [key for key in examples if report.run(git, "config", key).returncode]
            who = [f'git config --global {key} "{examples[key]}"' for key in missing]
            raise NotDone("git does not know who you are", *who, *start)

    branch = report.run(git, "config", "init.defaultBranch").stdout or "main"
    # The owner's hooks and keys are for the owner's own commits: neither asks anything, nor fails, here.
    git_alone = (git, "-c", f"core.hooksPath={os.devnull}", "-c", "commit.gpgSign=false")
    try:
        for words in (
            ("-c", f"init.defaultBranch={branch}", "init", "--quiet"),
            ("add", "."),
            ("commit", "--quiet", "--message", "Start from flask-starter"),
        ):
            done = report.run(*git_alone, *words)
            if done.returncode:
                raise report.trouble(done, *start)
    except Exception:
        shutil.rmtree(".git", ignore_errors=True)  # half made, and ours: there was none
        raise
    return f"first commit {report.run(git, 'rev-parse', '--short', 'HEAD').stdout}"


def do_stages(report: Report, options: argparse.Namespace) -> int:
    """Do one stage after the other, and say what is still to do."""
    report.say()
    before = held_before(options.package, options.answers_file)

    installed = report.stage("environment", lambda: make_environment(report, options.python))
    prefix = command_prefix()
    again = f"{prefix}pytest"
    tested = report.stage("tests", lambda: run_tests(report, installed, again))
    red = installed and not tested
    tail = report.tail()
    if options.git == "yes":
        report.stage("git", lambda: make_repository(report, before))

    error = (in_ci() and not tested) or (options.keep == "yes" and red)
    deleted = error and options.keep == "no"
    if red:
        report.log_matters = True
        report.say(f"\nThe end of the log:\n\n{tail}\n\nAll of it: {report.log}")
        report.say(report.paint(f"The tests fail{'' if deleted else ', project kept'}. Run them again: {again}", RED))
    report.say("\nNext:")
    for step in (*change_folder(), *report.todo, *([] if red else [f"{prefix}flask run --debug"])):
        report.say(f"  {step}")
    if deleted:
        report.say(
            "\nCI is set: this is an error, and Copier deletes a folder that it made. With --no-cleanup it stays."
        )
    return int(error)


def main() -> int:
    """Read the answers, and do the stages."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--package", required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--git", choices=["yes", "no"], required=True)
    parser.add_argument("--keep", choices=["yes", "no"], required=True)
    parser.add_argument("--answers-file", required=True)
    options = parser.parse_args()
    return conduct(
        lambda report: do_stages(report, options),
        "The project is complete: its README says how to set it up and test it.",
        130 if in_ci() or options.keep == "yes" else 0,
    )
