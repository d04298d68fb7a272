"""A static file whose URL names its content is kept for a year, any other is asked for again."""

from pathlib import Path

import pytest
from flask import Blueprint, Flask
from flask.testing import FlaskClient


def url(app: Flask, filename: str, endpoint: str = "static") -> str:
    """Build the URL of a static file."""
    with app.test_request_context():
        return app.url_for(endpoint, filename=filename)


def test_url_names_the_content(app: Flask, tmp_path: Path) -> None:
    app.static_folder = str(tmp_path)
    (tmp_path / "note.txt").write_text("one")
    first = url(app, "note.txt")
    (tmp_path / "other.txt").write_text("two")
    (tmp_path / "other.txt").replace(tmp_path / "note.txt")

    assert "?v=" in first
    assert url(app, "note.txt") != first


def test_hashed_file_is_kept_for_a_year(app: Flask, client: FlaskClient) -> None:
    response = client.get(url(app, "style.css"))

    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    response.close()


@pytest.mark.parametrize("query", ["", "?v=", "?v=0123456789abcdef"])
def test_file_without_its_hash_is_asked_for_again(client: FlaskClient, query: str) -> None:
    response = client.get(f"/static/style.css{query}")

    assert response.headers["Cache-Control"] == "no-cache"
    again = client.get("/static/style.css", headers={"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304
    response.close()
    again.close()


def test_part_of_a_file_can_be_asked_for(client: FlaskClient) -> None:
    response = client.get("/static/style.css", headers={"Range": "bytes=0-9"})

    assert response.status_code == 206
    assert len(response.data) == 10
    response.close()


@pytest.mark.parametrize("filename", ["missing.css", "../home.py", "sub/missing.css"])
def test_file_that_is_not_there_has_no_hash(app: Flask, client: FlaskClient, filename: str) -> None:
    assert "?v=" not in url(app, filename)
    response = client.get(f"/static/{filename}?v=0123456789abcdef")
    assert response.status_code == 404
    assert "Cache-Control" not in response.headers


def test_files_of_a_blueprint_are_hashed_too(app: Flask, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("of a blueprint")
    app.register_blueprint(
        Blueprint("room", __name__, static_folder=tmp_path, static_url_path="/room")
    )

    assert url(app, "note.txt", "room.static").startswith("/room/note.txt?v=")
