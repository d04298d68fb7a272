"""Static files that browsers keep for a year, and fetch again as soon as they change."""

import hashlib
import os
from threading import Lock
from typing import Any, TypeGuard
from wsgiref.types import WSGIEnvironment

from flask import Flask, Response, current_app, request
from werkzeug import wrappers
from werkzeug.datastructures import Headers
from werkzeug.security import safe_join

YEAR = 365 * 24 * 60 * 60  # seconds
# The state of each file when it was hashed, and the hash, by path: as many as there are files.
HASHES: dict[str, tuple[tuple[int, int, int], str]] = {}
LOCK = Lock()


def init_app(app: Flask) -> None:
    """Put a hash of the content into the URL and the ETag of each static file."""
    check = app.debug or app.testing  # a server's files change with its next start

    @app.url_defaults
    def add_hash(endpoint: str, values: dict[str, Any]) -> None:
        """Add ``v`` to what ``url_for`` builds for a static file that exists."""
        if is_static(endpoint):
            filename = values.get("filename", "")
            if digest := content_hash(endpoint, filename, check=check):
                values["v"] = digest

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
        if is_static(endpoint) and (path := find_file(endpoint, values.get("filename", ""))):
            modified, _, size = file_state(path)
            sent = self.last_modified and self.last_modified.timestamp(), complete_length
            if sent == (modified // 10**9, size):  # not a sign-in page in place of the file
                digest = hash_file(path)
                self.set_etag(digest)
                self.is_immutable = request.args.get("v") == digest
        return super().make_conditional(request_or_environ, accept_ranges, complete_length)

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Return the headers, which allow caching if the URL contains the hash of the content.

        Flask adds the session cookie after the last ``after_request`` function.
        """
        headers = super().get_wsgi_headers(environ)
        own = self.cache_control.no_store or self.cache_control.private or "Set-Cookie" in headers
        if self.is_immutable and self.status_code in {200, 206, 304} and not own:
            headers["Cache-Control"] = f"public, max-age={YEAR}, immutable"
        return headers


def is_static(endpoint: str | None) -> TypeGuard[str]:
    """Return whether an endpoint serves static files, of the app or of a blueprint."""
    return endpoint is not None and endpoint.rpartition(".")[2] == "static"


def content_hash(endpoint: str, filename: str, *, check: bool) -> str | None:
    """Return the hash of a static file, or None where there is none.

    :param check: whether to check that the file is still the one that was hashed.
    """
    folder = current_app.blueprints.get(endpoint.rpartition(".")[0], current_app).static_folder
    if not check and (known := HASHES.get(f"{folder}/{filename}")):
        return known[1]
    return hash_file(path) if (path := find_file(endpoint, filename)) else None


def find_file(endpoint: str, filename: str) -> str | None:
    """Return the path of a static file, or None where there is none."""
    folder = current_app.blueprints.get(endpoint.rpartition(".")[0], current_app).static_folder
    # Without a static folder, the endpoint is a view of that name.
    path = safe_join(folder, filename) if folder else None
    return path if path and "\0" not in path and os.path.isfile(path) else None


def file_state(path: str) -> tuple[int, int, int]:
    """Return what changes with the content of a file: times in nanoseconds, and the size in bytes."""
    stat = os.stat(path)
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size


def hash_file(path: str) -> str:
    """Hash a file, unless it is still the one that was hashed before."""
    state = file_state(path)
    if (known := HASHES.get(path)) and known[0] == state:
        return known[1]
    with LOCK:  # one thread reads a large file, and the others wait for its hash
        if (known := HASHES.get(path)) and known[0] == state:
            return known[1]
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        HASHES[path] = state, digest
    return digest
