"""Static files that browsers keep for a year, and fetch again as soon as they change."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard
from wsgiref.types import WSGIEnvironment

from flask import Flask, current_app, request, wrappers
from werkzeug.datastructures import Headers
from werkzeug.security import safe_join
from werkzeug.wrappers import Response

YEAR = 365 * 24 * 60 * 60  # seconds


def init_app(app: Flask) -> None:
    """Put a hash of the content into the URL of each static file."""
    find_hash: Callable[..., str | None] = content_hash
    if not (app.debug or app.testing):  # a server's files change with its next start
        find_hash = lru_cache(maxsize=1024)(content_hash)

    @app.url_defaults
    def add_hash(endpoint: str, values: dict[str, Any]) -> None:
        """Add ``v`` to what ``url_for`` builds for a static file that exists."""
        if is_static(endpoint) and (digest := find_hash(endpoint, values.get("filename", ""))):
            values["v"] = digest

    app.after_request(keep_hashed)


class HashedFile(wrappers.Response):
    """A static file whose URL contains the hash of its content."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Return the headers, which allow caching unless the response sets a cookie.

        Flask adds the session cookie after the last ``after_request`` function.
        """
        headers = super().get_wsgi_headers(environ)
        if "Set-Cookie" not in headers:
            headers["Cache-Control"] = f"public, max-age={YEAR}, immutable"
        return headers


def keep_hashed(response: Response) -> Response:
    """Let a file be kept whose URL names the very content; any other is asked for again."""
    endpoint, values = request.endpoint, request.view_args
    if not is_static(endpoint) or not values:
        return response
    # An error or a sign-in page may be sent in place of the file.
    if response.status_code not in {200, 206, 304} or "Last-Modified" not in response.headers:
        return response
    version = request.args.get("v")
    if version and version == content_hash(endpoint, values.get("filename", "")):
        return HashedFile.force_type(response)
    return response


def is_static(endpoint: str | None) -> TypeGuard[str]:
    """Tell whether an endpoint serves static files, of the app or of a blueprint."""
    return endpoint is not None and endpoint.rpartition(".")[2] == "static"


def content_hash(endpoint: str, filename: str) -> str | None:
    """Hash a static file, or return None where there is none."""
    room = current_app.blueprints.get(endpoint.rpartition(".")[0], current_app)
    # Without a static folder, the endpoint is a view of that name.
    if room.static_folder and (path := safe_join(room.static_folder, filename)):
        with suppress(OSError, ValueError):  # a NUL in the name raises ValueError
            return hash_file(path, Path(path).stat().st_mtime_ns)
    return None


@lru_cache(maxsize=1024)
def hash_file(path: str, _modified: int) -> str:
    """Hash a file once for each time that it was modified."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
