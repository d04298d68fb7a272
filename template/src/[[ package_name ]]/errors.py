"""One page and one JSON shape for every HTTP error."""

from flask import Flask, current_app, render_template, request
from markupsafe import Markup
from werkzeug.exceptions import BadRequest, HTTPException, SecurityError
from werkzeug.wrappers import Response

PROBLEM = "application/problem+json"  # RFC 9457

# Stands by itself, for when a template cannot be rendered.
PLAIN_PAGE = Markup("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{code} {name}</title>
<h1>{name}</h1>
<p>{description}</p>
</html>
""")


def init_app(app: Flask) -> None:
    """Answer every error, unhandled exceptions included, in the app's own way."""
    app.register_error_handler(HTTPException, handle)


def handle(error: HTTPException) -> Response:
    """Answer an error as a page or as JSON, with its status and headers such as ``Allow`` kept."""
    if isinstance(error, SecurityError):
        host = request.headers.get("Host")
        current_app.logger.warning("Host %r is not in FLASK_TRUSTED_HOSTS", host)
        error.description = BadRequest.description  # its own repeats the host that was asked for
    response = error.get_response()
    if error.response is not None:  # a view's own, such as abort(401, response=…)
        return response
    if wants_json():
        response.content_type = PROBLEM
        response.data = current_app.json.dumps(
            {"title": error.name, "status": error.code, "detail": error.description}
        )
    else:
        response.content_type = "text/html; charset=utf-8"
        response.data = page(error)
    response.vary.add("Accept")
    return response


def wants_json() -> bool:
    """Return whether to answer in JSON: the ``Accept`` header decides.

    If it prefers neither, JSON is sent where the path has a segment ``api``, and HTML elsewhere.
    """
    offered = ["text/html", "application/json", PROBLEM]
    if "api" in request.path.split("/"):
        offered.reverse()
    return request.accept_mimetypes.best_match(offered, offered[0]) != "text/html"


def page(error: HTTPException) -> str:
    """Render the error in the layout, or plainly where that is impossible."""
    # The layout builds URLs, which is impossible for a host that is malformed or not trusted.
    if not isinstance(request.routing_exception, BadRequest):
        try:
            return render_template("error.html", error=error)
        except Exception:
            current_app.logger.exception("The page for an error %s cannot be rendered", error.code)
    return PLAIN_PAGE.format(code=error.code, name=error.name, description=error.description)
