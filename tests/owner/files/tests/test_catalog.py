"""What the owner added to the app works."""

from flask import Flask
from flask.testing import FlaskClient


def test_catalog_is_reached_from_every_page(client: FlaskClient) -> None:
    assert 'href="/catalog/"' in client.get("/").text
    assert "1,200 engines a page" in client.get("/catalog/").text


def test_settings_pages_and_styles_are_ours(app: Flask, client: FlaskClient) -> None:
    assert app.config["CATALOG_PAGE_SIZE"] == 1200
    assert "Engines since 1843." in client.get("/").text
    assert "Write to ada@example.com." in client.get("/nowhere").text
    with client.get("/static/style.css") as response:
        assert ".engine" in response.text
