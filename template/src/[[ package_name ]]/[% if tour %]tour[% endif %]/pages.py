"""What the pages of the tour have in common: their order, and the source of each view."""

import inspect
import re
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from flask import current_app, render_template
from markupsafe import Markup

from .blueprint import bp
from .topics import CHAPTERS, INDEX

TOPICS = [INDEX, *(topic for topics in CHAPTERS.values() for topic in topics)]

ONE_BY_ONE = Lock()  # Python 3.11 cannot parse in two threads at a time

COLOURED = re.compile(
    r'(?P<string>[bfr]?(?:"""[\s\S]*?"""|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'))'
    r"|(?P<comment>#.*)"
)


def page(name: str, /, *also: Any, **context: Any) -> str:
    """Render the page of a topic, with the source of its views and of what they use.

    The template is ``tour/<name>.html`` where there is one; ``tour/page.html`` shows ``facts``.
    """
    place = [topic.name for topic in TOPICS].index(name)
    topic = TOPICS[place]
    template = current_app.jinja_env.select_template([f"tour/{name}.html", "tour/page.html"])
    views = [current_app.view_functions[f"tour.{view}"] for view in topic.views or (name,)]
    return render_template(
        template,
        topic=topic,
        place=place,
        before=TOPICS[place - 1] if place else None,
        after=next(iter(TOPICS[place + 1 :]), None),
        total=len(TOPICS) - 1,
        sources={part.__name__: source(part) for part in [*also, *views]},
        markup=template_source(str(template.name)),
        **context,
    )


@cache
def source(part: Any) -> Markup:
    """Read the source of a function, class or module, as it runs here."""
    with ONE_BY_ONE:
        return coloured(inspect.getsource(part).rstrip())


def template_source(name: str) -> str:
    """Read the source of one of the tour's templates."""
    return Path(bp.root_path, "templates", name).read_text(encoding="utf-8").rstrip()


def coloured(code: str) -> Markup:
    """Escape code for a page, with its strings and comments marked."""
    marked, end = Markup(), 0
    for found in COLOURED.finditer(code):
        marked += code[end : found.start()]
        marked += Markup('<span class="{}">{}</span>').format(found.lastgroup, found[0])
        end = found.end()
    return marked + code[end:]
