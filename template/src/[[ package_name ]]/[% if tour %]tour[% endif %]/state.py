"""What a browser remembers from one request to the next."""

from base64 import urlsafe_b64decode
from typing import Any

from flask import (
    Response,
    after_this_request,
    current_app,
    flash,
    make_response,
    redirect,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue

from .blueprint import bp
from .pages import page

BISCUITS = ("ginger", "lemon", "oat")
CATEGORIES = {
    "message": "A message without a category.",
    "success": "It worked.",
    "warning": "It worked, but look again.",
    "error": "It did not work.",
}


def flags() -> dict[str, Any]:
    """Say who may see a cookie: this site, no script, and no listener on the way."""
    secure = not current_app.debug
    return {"secure": secure, "httponly": True, "samesite": "Lax", "path": request.path}


def remember_visit() -> None:
    """Set a cookie before there is a response to set it on."""

    @after_this_request
    def set_visited(response: Response) -> Response:
        response.set_cookie("tour_visited", "yes", **flags())
        return response


@bp.get("/cookies")
def cookies() -> str:
    """Read the cookies of this page."""
    first = "tour_visited" not in request.cookies
    if first:
        remember_visit()
    facts = {
        "Your biscuit": request.cookies.get("tour_biscuit", "none yet"),
        "Your first visit": "yes" if first else "no",
    }
    return page("cookies", flags, remember_visit, facts=facts, biscuits=BISCUITS)


@bp.post("/cookies")
def set_cookie() -> ResponseReturnValue:
    """Hand out a biscuit, or take it back."""
    response = make_response(redirect(url_for("tour.cookies")))
    biscuit = request.form.get("biscuit")
    if biscuit in BISCUITS:
        response.set_cookie("tour_biscuit", biscuit, max_age=3600, **flags())
    else:
        response.delete_cookie("tour_biscuit", **flags())
    return response


def readable(cookie: str) -> str:
    """Read what a session's cookie says, for which nobody needs the key."""
    try:
        return urlsafe_b64decode(cookie.partition(".")[0] + "==").decode(errors="replace")
    except ValueError:
        return ""


@bp.get("/session")
def session_page() -> str:
    """Greet whoever signed in."""
    cookie = request.cookies.get(current_app.config["SESSION_COOKIE_NAME"], "")
    facts = {
        "The cookie says": readable(cookie) or "nothing",
        "The app believes": dict(session) or "nothing",
    }
    return page("session", readable, facts=facts, name=session.get("tour_name"))


@bp.post("/session")
def sign_in() -> ResponseReturnValue:
    """Remember a name."""
    session["tour_name"] = request.form["name"].strip()[:40]
    return redirect(url_for("tour.session_page"))


@bp.post("/session/sign-out")
def sign_out() -> ResponseReturnValue:
    """Forget it."""
    session.pop("tour_name", None)
    return redirect(url_for("tour.session_page"))


@bp.get("/flash")
def flash_page() -> str:
    """Wait for the button."""
    return page("flash")


@bp.post("/flash")
def flash_each() -> ResponseReturnValue:
    """Leave a message of each category for the next page."""
    for category, message in CATEGORIES.items():
        flash(message, category)
    return redirect(url_for("tour.flash_page"))
