"""What the template writes is well-formed, clean, and holds nothing of an option that is off."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import COUNTABLE, ROOT, Render, describe, every_pair, run

# The words that betray an option; its own room is checked by them too.
TRACES = {
    ("database", "none"): r"sql|migrat|alembic|DATABASE_URL|\bdb\b",
    ("database", "sqlite"): r"postgres|psycopg|mysql|mariadb|TEST_DATABASE_URL",
    ("database", "postgresql"): r"mysql|mariadb",
    ("database", "mysql"): r"postgres|psycopg",
    ("proxy_fix", False): r"proxy_?fix|X-Forwarded|proxies\b",
    ("license", "none"): r"licen[cs]e",
    ("user_email", ""): r"authors",
}
# The answers file names every answer, and the README and Markdown speak of answers.
ANSWERS = {".copier-answers.yml"}


def texts(project: Path) -> dict[str, str]:
    """Every file of a project by its name; all are UTF-8."""
    return {
        path.relative_to(project).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(project.rglob("*"))
        if path.is_file()
    }
