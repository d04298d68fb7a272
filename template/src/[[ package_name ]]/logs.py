"""Logging to standard output: readable in debug mode, one JSON object a line elsewhere."""

import json
import logging
import re
import secrets
import socket
import sys
from datetime import UTC, datetime
from typing import Any

from flask import Flask, g, has_request_context, request
from werkzeug.wrappers import Response

from .settings import ConfigError

HOST = socket.gethostname()
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SANE_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


def init_app(app: Flask) -> None:
    """Log what the app says at ``LOG_LEVEL`` or above, and the warnings of its libraries.

    :raises ConfigError: for a level that does not exist.
    """
    level = str(app.config["LOG_LEVEL"]).upper()
    if level not in LEVELS:
        raise ConfigError(f"FLASK_LOG_LEVEL is {level}: set one of {', '.join(LEVELS)}.")
    handler = logging.StreamHandler(sys.stdout)
    handler.name = __name__
    handler.setFormatter(ReadableFormatter() if app.debug else JSONFormatter())

    root = logging.getLogger()
    # Another app of this process may have set one up.
    root.handlers = [other for other in root.handlers if other.name != __name__] + [handler]
    app.logger.setLevel(level)  # last: Flask's logger adds a handler of its own where it finds none

    app.before_request(take_request_id)
    app.after_request(send_request_id)


def take_request_id() -> None:
    """Keep the id that a proxy gave the request, if it is fit for a log, or make one."""
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if SANE_ID.fullmatch(given) else secrets.token_hex(16)


def send_request_id(response: Response) -> Response:
    """Tell the client the id, to be quoted when something went wrong."""
    if request_id := current_request_id():  # none where a URL was refused before
        response.headers["X-Request-ID"] = request_id
    return response


def current_request_id() -> str | None:
    """The id of the request that this thread works on, if any."""
    return g.get("request_id") if has_request_context() else None


class ReadableFormatter(logging.Formatter):
    """Lines for a person; a line break in a message is shown, not obeyed."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format a record without its traceback."""
        if record.name != "werkzeug":  # the development server's own lines are safe, and many
            record.message = record.message.replace("\r", "\\r").replace("\n", "\\n")
        return super().formatMessage(record)


class JSONFormatter(logging.Formatter):
    """Lines for a program, each a JSON object; ``extra={"fields": {…}}`` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "host": HOST,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= getattr(record, "fields", {})
        if request_id := current_request_id():
            entry["request_id"] = request_id
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)
