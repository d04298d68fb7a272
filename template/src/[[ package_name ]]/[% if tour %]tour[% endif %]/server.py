"""Between the server and the app."""

from collections.abc import Iterable
from time import perf_counter
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, current_app, request

from .blueprint import bp
from .pages import page


class ServerTiming:
    """Tell the browser how long a page of the tour took."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start = perf_counter()

        def start_timed(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            took = (perf_counter() - start) * 1000
            timing = ("Server-Timing", f"app;dur={took:.1f}")
            return start_response(status, [*headers, timing], *error)

        if environ["PATH_INFO"].startswith("/tour/"):
            return self.app(environ, start_timed)
        return self.app(environ, start_response)


def init_app(app: Flask) -> None:
    """Put it around the app, and around what is there already."""
    app.wsgi_app = ServerTiming(app.wsgi_app)  # type: ignore[method-assign]


@bp.get("/wsgi")
def wsgi() -> str:
    """Show what the server said about this request; the rest of it is nobody's business."""
    called = current_app.__class__.__name__
    keys = (
        "REQUEST_METHOD",
        "PATH_INFO",
        "wsgi.url_scheme",
        "SERVER_PROTOCOL",
        "SERVER_SOFTWARE",
    )
    facts = {"It called": f"{called}.__call__(environ, start_response)"}
    facts |= {key: request.environ.get(key, "unsaid") for key in keys}
    return page("wsgi", facts=facts)


@bp.get("/middleware")
def middleware() -> str:
    """Show the client as the app sees it, behind all middleware."""
    facts = {
        "Client's address": request.remote_addr,
        "Scheme": request.scheme,
        "Host": request.host,
    }
    return page("middleware", ServerTiming, init_app, facts=facts)


@bp.get("/running")
def running() -> str:
    """Tell whether this process is safe to be seen."""
    if current_app.debug:
        mode = "On: errors open a console. For you alone."
    else:
        mode = "Off: errors are logged, not shown."
    return page("running", facts={"Debug mode": mode})
