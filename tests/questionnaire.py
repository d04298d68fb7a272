"""Copier's own questionnaire without the writing, for the tests that try hundreds of texts."""

import functools
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import checked
from copier._main import Worker
from copier._settings import SettingsModel

# It names the question, and says what is wrong with the answer and what to do, in either order.
REFUSAL = re.compile(r"Validation error for question '(\w+)': [A-Z0-9][^:\n]+: [^\n]+\.")


def shown(value: object) -> str:
    """A test's name that any terminal can show, of a length that it can show."""
    return ascii(value)[1:-1][:40] or "empty"


class Questionnaire:
    """The questions of a template, answered in milliseconds because each expression is compiled once.

    :param version: the release, where the template is a repository; the newest where it is not given.
    """

    def __init__(self, template: Path, version: str | None = None) -> None:
        self.template, self.version = template, version
        worker = self.worker({}, "myapp")
        self.env = worker.jinja_env
        self.env.from_string = functools.cache(self.env.from_string)  # type: ignore[assignment]
        self.shared = {"template": worker.template, "jinja_env": self.env}
        source = worker.template.local_abspath  # of a repository Copier's own clone
        top = source / "template"
        self.sources = {
            path.relative_to(top).as_posix(): self.env.get_template(path.relative_to(source).as_posix())
            if path.suffix == ".jinja"
            else path.read_bytes()
            for path in sorted(top.rglob("*"))
            if path.is_file()
        }
        self.answer()  # which reads all that it wants of the clone
        worker.template._cleanup()

    def worker(self, answers: dict[str, Any], folder: str) -> Worker:
        """What ``copier copy --defaults`` starts with, without the user's settings."""
        return Worker(
            src_path=str(self.template),
            dst_path=self.template.with_name("nowhere") / folder,
            vcs_ref=self.version,
            data=answers,
            defaults=True,
            settings=SettingsModel(),
        )

    def answer(self, folder: str = "myapp", **answers: Any) -> dict[str, Any]:
        """Everything that the template's files can show after these answers.

        :raises ValueError: with the sentence that a person reads, for an answer that is refused.
        """
        worker = self.worker(checked(answers), folder)
        vars(worker).update(self.shared)
        worker._ask()
        return dict(worker._render_context())

    def refusal(self, folder: str = "myapp", **answers: Any) -> str:
        """The sentence that refuses the answers; empty where they are taken."""
        try:
            self.answer(folder, **answers)
        except ValueError as refused:
            return str(refused)
        return ""

    def project(self, suffix: str = "", **answers: Any) -> dict[str, bytes]:
        """Each file that the answers make, by its path: those alone whose source has a suffix."""
        context = self.answer(**answers)
        written = {}
        for name, template in self.sources.items():
            path = self.env.from_string(name.removesuffix(".jinja")).render(context)
            if name.endswith(suffix) and all(path.split("/")):
                written[path] = template if isinstance(template, bytes) else template.render(context).encode()
        return written

    def write(self, folder: Path, **answers: Any) -> None:
        """Write the project that the answers make, which is the one that ``copier copy`` writes."""
        for name, content in self.project(**answers).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def files(self, **answers: Any) -> dict[str, str]:
        """The text of each file that depends on the answers, by its path."""
        return {path: content.decode() for path, content in self.project(".jinja", **answers).items()}


@pytest.fixture(scope="session")
def questionnaire(template: Path) -> Questionnaire:
    """The questions of this checkout."""
    return Questionnaire(template)
