"""A plugin for pytest that spares suites which run by the dozen half of their time, and Copier's renders too.

Templates, and rules where there is werkzeug, are compiled once and not for each environment: Copier makes one for each
render, and the suite of a project two hundred apps with forty rules each. What comes out depends on the text alone. And
the collector of garbage does not look again and again through what was imported. Suites run without this in the
README's first command, and in what the hooks do after a copy or an update.
"""

import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from jinja2 import Environment

COMPILED: dict[Any, Any] = {}


def remember(compile_it: Callable[..., Any], key: Callable[..., Any]) -> Callable[..., Any]:
    """Compile only that of which the key was not seen before."""

    def compiled(*given: Any) -> Any:
        seen = key(*given)
        if seen not in COMPILED:
            COMPILED[seen] = compile_it(*given)
        return COMPILED[seen]

    return compiled


Environment.compile = remember(  # type: ignore[method-assign]
    Environment.compile,
    lambda environment, source, *name: (type(environment), environment.block_start_string, source, *name[:1]),
)
with suppress(ImportError):
    from werkzeug.routing import Rule

    Rule._compile_builder = remember(
        Rule._compile_builder, lambda rule, *unknown: (rule.rule, str(rule.defaults), *unknown, *rule._trace)
    )


def pytest_collection_finish() -> None:
    """Take what is there before the first test for what stays."""
    gc.collect()
    gc.freeze()
