"""How an address finds its view, and a view its address."""

from uuid import UUID

from flask import current_app, request, url_for

from . import blueprint
from .blueprint import bp
from .pages import page
from .topics import CHAPTERS


@bp.get("/")
def index() -> str:
    """Show the table of contents."""
    return page("index", chapters=CHAPTERS)


@bp.get("/rules/string/<string:value>")
@bp.get("/rules/int/<int:value>")
@bp.get("/rules/float/<float:value>")
@bp.get("/rules/path/<path:value>")
@bp.get("/rules/uuid/<uuid:value>")
def rules(value: str | float | UUID) -> str:
    """Take a part of the path, converted."""
    facts = {
        "Rule": request.url_rule,
        "Value": value,
        "Python type": type(value).__name__,
    }
    return page("rules", blueprint, facts=facts)


@bp.get("/projects/")
def projects() -> str:
    """Be like a folder: with a slash."""
    return page("projects", facts={"You are at": request.path})


@bp.get("/about")
def about() -> str:
    """Be like a file: without one."""
    return page("projects", facts={"You are at": request.path})


@bp.get("/urls")
def urls() -> str:
    """Build addresses from the names of views."""
    facts = {
        "A view": url_for("tour.index"),
        "A variable of its rule": url_for("tour.hello", name="Ada"),
        "A name that the rule lacks": url_for("tour.search", q="flask"),
        "Special characters": url_for("tour.hello", name="Ada & Ω?"),
        "With scheme and host": url_for("tour.urls", _external=True),
        "To a place on the page": url_for("tour.urls", _anchor="code"),
    }
    return page("urls", facts=facts)


@bp.route("/methods", methods=["GET", "POST"])
def methods() -> str:
    """Show a form, and answer it."""
    facts = {
        "Method of this request": request.method,
        "Methods of this address": current_app.make_default_options_response().allow,
    }
    return page("methods", facts=facts, word=request.form.get("word"))


@bp.get("/static-files")
def static_files() -> str:
    """Ask for the addresses of two stylesheets."""
    facts = {
        "Of the package": url_for("static", filename="style.css"),
        "Of the tour": url_for("tour.static", filename="tour.css"),
    }
    return page("static_files", facts=facts)


@bp.get("/hello/")
@bp.get("/hello/<name>")
def hello(name: str = "") -> str:
    """Greet whom the address names."""
    return page("hello", page, name=name)
