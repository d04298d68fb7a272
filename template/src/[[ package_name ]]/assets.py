"""Static files that browsers keep for a year, and fetch again as soon as they change."""

import hashlib
import os
from contextlib import suppress
from threading import Lock
from typing import Any, TypeGuard
from wsgiref.types import WSGIEnvironment

from flask import Flask, Response, current_app, request
from werkzeug import wrappers
from werkzeug.datastructures import Headers
from werkzeug.security import safe_join

YEAR = 365 * 24 * 60 * 60  # seconds
# What changes with the content of a file: times in nanoseconds, and the size in bytes.
State = tuple[int, int, int]
# The state of each file when it was hashed, and the hash, by path: as many as there are files.
HASHES: dict[str, tuple[State, str]] = {}
LOCK = Lock()


def init_app(app: Flask) -> None:
    """Put a hash of the content into the URL and the ETag of each static file."""
    check = app.debug or app.testing  # a server's files change with its next start

    @app.url_defaults
    def add_hash(endpoint: str, values: dict[str, Any]) -> None:
        """Add ``v`` to what ``url_for`` builds for a static file that exists."""
        if is_static(endpoint):
            filename = values.get("filename", "")
            known = None if check else HASHES.get(f"{static_folder(endpoint)}/{filename}")
            if found := known or find_hash(endpoint, filename):
                values["v"] = found[1]

    app.response_class = HashedResponse


class HashedResponse(Response):
    """A response that identifies a static file by its content, the same on every host."""

    is_immutable = False

    def make_conditional(
        self,
        request_or_environ: WSGIEnvironment | wrappers.Request,
        accept_ranges: bool | str = False,
        complete_length: int | None = None,
    ) -> wrappers.Response:
        """Set the ETag before it is compared: Werkzeug's depends on the path and time of the file."""
        endpoint, values = request.endpoint, request.view_args or {}
        if is_static(endpoint) and (found := find_hash(endpoint, values.get("filename", ""))):
            (modified, _, size), digest = found
            sent = self.last_modified and self.last_modified.timestamp(), complete_length
            if sent == (modified // 10**9, size):  # not a sign-in page in place of the file
                self.set_etag(digest)
                self.is_immutable = request.args.get("v") == digest
        return super().make_conditional(request_or_environ, accept_ranges, complete_length)

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Return the headers, which allow caching if the URL contains the hash of the content.

        Flask adds the session cookie after the last ``after_request`` function.
        """
        headers = super().get_wsgi_headers(environ)
        if not self.is_immutable:
            return headers
        own = self.cache_control.no_store or self.cache_control.private or "Set-Cookie" in headers
        if self.status_code in {200, 206, 304} and not own:
            headers["Cache-Control"] = f"public, max-age={YEAR}, immutable"
        return headers


def is_static(endpoint: str | None) -> TypeGuard[str]:
    """Return whether an endpoint serves static files, of the app or of a blueprint."""
    return endpoint is not None and endpoint.rpartition(".")[2] == "static"


def static_folder(endpoint: str) -> str | None:
    """Return the static folder of the app or blueprint that an endpoint belongs to."""
    return current_app.blueprints.get(endpoint.rpartition(".")[0], current_app).static_folder


def find_hash(endpoint: str, filename: str) -> tuple[State, str] | None:
    """Return the state and the hash of a static file, or None where there is none."""
    folder = static_folder(endpoint)
    # Without a static folder, the endpoint is a view of that name.
    if folder and (path := safe_join(folder, filename)):
        with suppress(OSError, ValueError):  # a NUL in the name raises ValueError
            return hash_file(path)
    return None


def hash_file(path: str) -> tuple[State, str]:
    """Hash a file, unless it is still the one that was hashed before."""
    stat = os.stat(path)
    state = stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size
    if (known := HASHES.get(path)) and known[0] == state:
        return known
    with LOCK:  # one thread reads a large file, and the others wait for its hash
        if (known := HASHES.get(path)) and known[0] == state:
            return known
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        HASHES[path] = state, digest
    return state, digest
