"""The home page and the layout around it."""

import pytest
from flask import Flask, flash, redirect, url_for
from flask.testing import FlaskClient
from markupsafe import escape
from werkzeug.wrappers import Response


def test_home_page_names_the_app(app: Flask, client: FlaskClient) -> None:
    response = client.get("/")

    assert response.status_code == 200
    assert str(escape(app.config["APP_NAME"])) in response.text


def test_layout_has_landmarks_and_a_skip_link(client: FlaskClient) -> None:
    page = client.get("/").text

    for part in ('href="#content"', "<header", "<nav", '<main id="content"', "<footer"):
        assert part in page


@pytest.mark.parametrize(
    ("category", "role"),
    [("message", "status"), ("success", "status"), ("warning", "status"), ("error", "alert")],
)
def test_flashed_message_shows_once(app: Flask, category: str, role: str) -> None:
    @app.post("/flash")
    def flash_message() -> Response:
        flash("<b>Saved</b>", category)
        return redirect(url_for("home.index"))

    client = app.test_client()
    page = client.post("/flash", follow_redirects=True).text

    assert f'class="flash flash-{category}" role="{role}">&lt;b&gt;Saved' in page
    assert "Saved" not in client.get("/").text
