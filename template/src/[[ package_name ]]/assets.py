"""Static files that browsers keep for a year, and fetch again as soon as they change."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from flask import Flask, current_app, request
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


def keep_hashed(response: Response) -> Response:
    """Let a file be kept whose URL names the very content; any other is asked for again."""
    endpoint, values = request.endpoint, request.view_args
    if not is_static(endpoint) or not values or not (version := request.args.get("v")):
        return response
    if version == content_hash(endpoint, **values):
        response.cache_control.no_cache = None
        response.cache_control.public = True
        response.cache_control.max_age = YEAR
        response.cache_control.immutable = True
    return response


def is_static(endpoint: str | None) -> TypeGuard[str]:
    """Tell whether an endpoint serves static files, of the app or of a blueprint."""
    return endpoint is not None and endpoint.rpartition(".")[2] == "static"


def content_hash(endpoint: str, filename: str) -> str | None:
    """Hash a static file, or return None where there is none."""
    room = current_app.blueprints.get(endpoint.rpartition(".")[0], current_app)
    path = safe_join(room.static_folder or "", filename)
    try:
        return hash_file(str(path), Path(str(path)).stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=1024)
def hash_file(path: str, _modified: int) -> str:
    """Hash a file once for each time that it was modified."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
