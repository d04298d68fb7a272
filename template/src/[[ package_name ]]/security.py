"""What every response tells the browser, so that an attack on a page has less to work with.

The values follow the OWASP Secure Headers Project (https://owasp.org/www-project-secure-headers/),
but for Referrer-Policy: ``no-referrer`` would take the Origin from our own forms.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask

from .settings import ConfigError

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "X-Content-Type-Options": "nosniff",
}
# For this host only. If every subdomain has HTTPS, add "; includeSubDomains".
HTTPS_HEADERS = {"Strict-Transport-Security": "max-age=31536000"}
# https://www.w3.org/TR/CSP3/#framework-policy: browsers ignore a directive that they cannot parse.
DIRECTIVE = re.compile(r" *[a-zA-Z0-9-]+( +[!-+\--:<-~]+)* *")


def init_app(app: Flask) -> None:
    """Add the headers to every response.

    :raises ConfigError: for a ``CONTENT_SECURITY_POLICY`` that browsers would not apply.
    """
    policy = app.config["CONTENT_SECURITY_POLICY"]
    directives = policy.rstrip("; ").split(";") if isinstance(policy, str) else [""]
    if not all(map(DIRECTIVE.fullmatch, directives)):
        raise ConfigError(
            f"FLASK_CONTENT_SECURITY_POLICY is {policy!r}, but a policy is a line of directives"
            " with semicolons between them, such as: default-src 'self'; object-src 'none'"
        )
    headers = HEADERS | {"Content-Security-Policy": policy}
    https_headers = headers if app.debug else headers | HTTPS_HEADERS
    app.wsgi_app = SecurityHeaders(app.wsgi_app, headers, https_headers)  # type: ignore[method-assign]


class SecurityHeaders:
    """WSGI middleware that adds each header which a response does not set itself.

    Here it reaches every response, at half the price of ``after_request``.

    :param https_headers: what responses over HTTPS get instead of ``headers``.
    """

    def __init__(
        self, app: WSGIApplication, headers: dict[str, str], https_headers: dict[str, str]
    ) -> None:
        self.app = app
        self.headers = by_name(headers)
        self.https_headers = by_name(https_headers)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        wanted = self.https_headers if environ["wsgi.url_scheme"] == "https" else self.headers

        def add_headers(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[..., object]:
            present = {name.lower() for name, _value in headers}
            headers = headers + [header for name, header in wanted if name not in present]
            return start_response(status, headers, exc_info)

        return self.app(environ, add_headers)


def by_name(headers: dict[str, str]) -> list[tuple[str, tuple[str, str]]]:
    """Pair each header with its name in lower case, as names are compared."""
    return [(name.lower(), (name, value)) for name, value in headers.items()]
