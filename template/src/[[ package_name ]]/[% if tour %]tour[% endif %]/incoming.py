"""What comes with a request, and where it is found."""

from flask import current_app, g, request

from .blueprint import bp
from .pages import TOPICS, page


@bp.get("/search")
def search() -> str:
    """Look through the tour."""
    q = request.args.get("q", "").strip()
    words = q.casefold()
    found = [t for t in TOPICS if words in f"{t.title} {t.sentence}".casefold()]
    return page("search", q=q, found=found)


@bp.route("/form", methods=["GET", "POST"])
def form() -> str:
    """Insist on a field, once the form is sent."""
    if request.method == "GET":
        return page("form")
    return page("form", name=request.form["name"], sent=True)


def greeting() -> str:
    """Greet without being told whom: ``g`` knows."""
    return f"Hello, {g.name}!"


@bp.get("/context")
def context() -> str:
    """Put a name where the rest of this request finds it."""
    g.name = request.args.get("name", "Ada")
    facts = {
        "current_app.name": current_app.name,
        "request.full_path": request.full_path,
        "request.endpoint": request.endpoint,
        "g.name": g.name,
        "greeting()": greeting(),
    }
    return page("context", greeting, facts=facts)
