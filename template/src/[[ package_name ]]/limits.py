"""Read request bodies completely and within the limits, and reject malformed input.

Werkzeug treats an interrupted body as complete, truncates a chunked body at the limit without an
error, and limits only multipart forms. gunicorn resets the connection if a view does not read the
body.
"""

from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO
from math import inf
from typing import IO, Any, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Request, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import BadRequest, ClientDisconnected, HTTPException, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_date
from werkzeug.utils import cached_property
from werkzeug.wsgi import ClosingIterator, LimitedStream, get_content_length

from .settings import ConfigError

LIMITS = ("MAX_CONTENT_LENGTH", "MAX_FORM_MEMORY_SIZE", "MAX_FORM_PARTS")
DATES = ("HTTP_DATE", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_RANGE", "HTTP_IF_UNMODIFIED_SINCE")

# A client that sends nothing for so long may lose the response; gunicorn itself would wait forever.
DISCARD_SECONDS = 5
DISCARD_BYTES = 65536


def init_app(app: Flask) -> None:
    """Limit the body of every request, and reject malformed input.

    :raises ConfigError: for a limit of 0, with which no form could be sent.
    """
    for name in LIMITS:
        if app.config[name] == 0:
            raise ConfigError(f"FLASK_{name} is 0: set 1 or more, or null for no limit.")
    app.request_class = LimitedRequest
    app.json = JSONProvider(app)
    app.before_request(refuse_malformed)
    app.wsgi_app = DiscardBody(app, app.wsgi_app)  # type: ignore[method-assign]


def refuse_malformed() -> None:
    """Refuse a query string or a date that cannot be parsed, before a view or ``send_file`` fails.

    Python 3.14 ignores such a date, as RFC 9110 asks.

    :raises BadRequest: an error 400.
    """
    try:
        request.query_string.decode()
        for name in DATES:
            parse_date(request.environ.get(name))
    except (OverflowError, UnicodeDecodeError) as error:
        raise BadRequest from error


class DiscardBody:
    """WSGI middleware that discards the part of a request body that a view did not read.

    If gunicorn closed the connection before that, the client would get a reset in place of the
    response. Waitress and the development server read the body themselves.
    """

    def __init__(self, app: Flask, wsgi_app: WSGIApplication) -> None:
        self.app = app
        self.wsgi_app = wsgi_app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, and read the rest of a body that is within ``MAX_CONTENT_LENGTH``."""
        body, connection = environ["wsgi.input"], environ.get("gunicorn.socket")
        has_body = "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ
        response = self.wsgi_app(environ, start_response)
        if not (connection and has_body):
            return response
        limit = self.app.config["MAX_CONTENT_LENGTH"]

        def discard() -> None:
            left = inf if limit is None else limit
            if (get_content_length(environ) or 0) > left:
                return
            connection.settimeout(DISCARD_SECONDS)  # gunicorn restores its own
            with suppress(Exception):  # a client that stopped, or a malformed chunk
                while left > 0 and (piece := body.read(DISCARD_BYTES)):
                    left -= len(piece)

        return ClosingIterator(response, discard)


class JSONProvider(DefaultJSONProvider):
    """Parse untrusted JSON."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Parse JSON.

        :raises ValueError: for malformed JSON, and for JSON that is nested too deeply.
        """
        try:
            return super().loads(s, **kwargs)
        except RecursionError as error:
            raise ValueError("The JSON is nested too deeply.") from error


class ChunkedBody(LimitedStream):
    """A chunked body, without Content-Length: refused if interrupted, and beyond the limit."""

    def readinto(self, b: bytearray) -> int | None:  # type: ignore[override]
        """Read a piece."""
        try:
            return super().readinto(b)
        except HTTPException:
            raise
        except Exception as error:  # each server has its own for malformed chunks
            raise ClientDisconnected from error

    def readall(self) -> bytes:
        """Read the rest."""
        body = super().readall()
        if self.is_exhausted:
            raise RequestEntityTooLarge
        return body


class FormParser(FormDataParser):
    """Applies ``MAX_FORM_PARTS`` and ``MAX_FORM_MEMORY_SIZE`` to forms of both kinds."""

    def parse(
        self, stream: IO[bytes], mimetype: str, content_length: int | None, *args: Any
    ) -> Any:
        """Parse a form.

        A URL-encoded form is limited as a whole: decoding ``%…`` takes up to 80 times its size.

        :raises RequestEntityTooLarge: an error 413.
        """
        if mimetype == "application/x-www-form-urlencoded":
            if (limit := self.max_form_memory_size) is not None:
                refuse_beyond(limit, content_length or 0)
                stream = cast(IO[bytes], ChunkedBody(stream, limit + 1, is_max=True))
            body = stream.read()
            refuse_beyond(self.max_form_parts, body.count(b"&") + 1)
            stream = BytesIO(body)
        return super().parse(stream, mimetype, content_length, *args)


def refuse_beyond(limit: int | None, number: int) -> None:
    """Refuse the request where a number is beyond a limit, if there is one.

    :raises RequestEntityTooLarge: an error 413.
    """
    if limit is not None and number > limit:
        raise RequestEntityTooLarge


class LimitedRequest(Request):
    """A request whose body is limited, and whose host is in lower case like ``TRUSTED_HOSTS``."""

    form_data_parser_class = FormParser

    def __init__(self, environ: WSGIEnvironment, *args: Any, **options: Any) -> None:
        if "HTTP_HOST" in environ:  # case-insensitive: RFC 9110, section 4.2.3
            environ["HTTP_HOST"] = environ["HTTP_HOST"].lower()
        super().__init__(environ, *args, **options)

    @cached_property
    def stream(self) -> IO[bytes]:
        """The body as it comes in."""
        if self.content_length is not None:
            # Without the server's word that the body ends by itself, its length is counted.
            self.environ.pop("wsgi.input_terminated", None)
        elif self.max_content_length is not None and "wsgi.input_terminated" in self.environ:
            limit = self.max_content_length
            return cast(IO[bytes], ChunkedBody(self.input_stream, limit + 1, is_max=True))
        return super().stream
