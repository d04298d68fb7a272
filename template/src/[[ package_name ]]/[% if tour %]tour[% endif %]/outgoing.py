"""What a view may answer with."""

from collections.abc import Iterator
from typing import NoReturn

from flask import abort, make_response, redirect, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import default_exceptions
from werkzeug.wrappers import Response

from .. import errors
from .blueprint import bp
from .pages import page

PLAIN = {"Content-Type": "text/plain; charset=utf-8"}
DOCUMENT = """<!doctype html>
<html lang="en">
<title>Text</title>
<main><h1>Text becomes a page</h1><p>Its type is text/html.</p></main>
</html>
"""
ERRORS = {code: error for code, error in default_exceptions.items() if 400 <= code <= 599}


@bp.get("/responses/")
def responses() -> str:
    """List the kinds."""
    return page("responses")


@bp.get("/responses/<kind>")
def respond(kind: str) -> ResponseReturnValue:
    """Return one thing or another: Flask makes a response of each."""
    match kind:
        case "string":
            return DOCUMENT
        case "dict":
            return {"name": "Ada Lovelace", "born": 1815}
        case "list":
            return ["Ada Lovelace", "Grace Hopper"]
        case "tuple":
            return "A body, a status and headers.\n", 201, PLAIN
        case "response":
            response = make_response("See my headers.\n", PLAIN)
            response.headers["X-Tour"] = "make_response"
            return response
        case "stream":
            return count_down(), PLAIN
        case "wsgi":
            return Response("Another WSGI app speaks.\n", headers=PLAIN).__call__
    abort(404)


def count_down() -> Iterator[str]:
    """Make a body line by line, each sent before the next is made."""
    for number in range(3, 0, -1):
        yield f"{number} …\n"
    yield "Go!\n"


@bp.get("/redirect")
def go() -> ResponseReturnValue:
    """Send the browser to another view."""
    return redirect(url_for("tour.redirected"))


@bp.get("/redirected")
def redirected() -> str:
    """List the errors."""
    return page("redirected", errors.init_app, errors.handle, errors=ERRORS)


@bp.get("/abort/<int:code>")
def fail(code: int) -> NoReturn:
    """End with the error of that number, if there is one."""
    abort(code if code in ERRORS else 404)
