"""A small JSON API."""

from threading import Lock
from typing import Any

from flask import abort, current_app, request, url_for
from flask.typing import ResponseReturnValue

from .blueprint import bp
from .pages import page


class Register:
    """The people this process knows, the newest fifty: a lock keeps threads apart."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.last = 1
        self.by_id = {1: "Ada Lovelace"}

    def add(self, name: str) -> int:
        """Remember somebody, and forget the oldest when there are too many."""
        with self.lock:
            self.last += 1
            known = [*self.by_id.items(), (self.last, name)]
            self.by_id = dict(known[-50:])
            return self.last


def known_people() -> Register:
    """Find the people of this app."""
    known: Register = current_app.extensions["tour_people"]
    return known


@bp.get("/json")
def json() -> str:
    """Explain the API."""
    return page("json", Register)


@bp.get("/api/people")
def people() -> list[dict[str, Any]]:
    """List everybody."""
    return [{"id": key, "name": name} for key, name in known_people().by_id.items()]


@bp.post("/api/people")
def add_person() -> ResponseReturnValue:
    """Add somebody: 201, or 413, 415, 400 or 422."""
    request.max_content_length = 800  # enough for a name, too little to nest deeply
    sent = request.get_json()  # 415 for another type, 400 for what is no JSON
    name = sent.get("name") if isinstance(sent, dict) else None
    if not isinstance(name, str) or not 0 < len(name) <= 80 or not name.isprintable():
        abort(422, 'Send an object such as {"name": "Ada Lovelace"}, of 80 letters at most.')
    key = known_people().add(name)
    location = {"Location": url_for("tour.person", key=key)}
    return {"id": key, "name": name}, 201, location


@bp.get("/api/people/<int:key>")
def person(key: int) -> dict[str, Any]:
    """Show one of them, or 404."""
    name = known_people().by_id.get(key) or abort(404)
    return {"id": key, "name": name}
