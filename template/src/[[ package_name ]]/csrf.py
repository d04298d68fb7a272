"""Refuse what another site makes a visitor's browser send (cross-site request forgery).

Browsers say in ``Sec-Fetch-Site`` where a request comes from, and older ones in ``Origin``; a client
that sends neither is no browser and carries nobody's cookies. So forms need no token, pages no
session, and JSON endpoints are covered too.
https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
"""

import re

from flask import Flask, current_app, request
from werkzeug.exceptions import Forbidden

from .settings import ConfigError

SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}  # RFC 9110, section 9.2.1
# RFC 6454, section 6.2: no path, no user, no default port.
ORIGIN = re.compile(
    r"(?!http:.*:80\Z|https:.*:443\Z)[a-z][a-z0-9+.-]*://([\w.-]+|\[([0-9a-f]|:)+\])(:\d+)?",
    re.ASCII,
)


class CrossSiteRequest(Forbidden):
    """A request that another site made this browser send."""

    description = (
        "This request came from another site, so nothing was changed."
        " If you meant it, open the page here and send it again."
    )


def init_app(app: Flask) -> None:
    """Check every request before its view runs, but for those from ``CSRF_TRUSTED_ORIGINS``.

    :raises ConfigError: for a value that no Origin header can match.
    """
    trusted = [str(origin).lower() for origin in app.config["CSRF_TRUSTED_ORIGINS"]]
    for origin in trusted:
        if not ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"FLASK_CSRF_TRUSTED_ORIGINS holds {origin!r}: set origins as browsers send them,"
                " such as https://accounts.example.com, without a path or a default port."
            )
    app.config["CSRF_TRUSTED_ORIGINS"] = trusted
    app.before_request(refuse_cross_site)


def refuse_cross_site() -> None:
    """Refuse an unsafe method that does not come from this site or a trusted one.

    :raises CrossSiteRequest: an error 403 with a page of its own.
    """
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("Origin")
    if origin in current_app.config["CSRF_TRUSTED_ORIGINS"]:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site:
        own = site in {"same-origin", "none"}
    else:
        # The host alone: behind a proxy that ends TLS the schemes may differ.
        own = origin is None or origin.endswith(f"://{request.host}")
    if not own:
        raise CrossSiteRequest
