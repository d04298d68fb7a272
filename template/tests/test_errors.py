"""Every HTTP error is a page for people and one JSON shape for programs."""

import logging

import pytest
from flask import Flask, abort, request
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException, ServiceUnavailable, TooManyRequests

JSON = {"Accept": "application/json"}


class TeapotOnStrike(HTTPException):
    code = 499
    description = "Not today."


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.get("/abort/<int:code>")
    def abort_with(code: int) -> str:
        abort(code)

    @app.get("/crash")
    @app.get("/api/crash")
    def crash() -> str:
        raise RuntimeError("the password is swordfish")

    @app.get("/busy")
    def busy() -> str:
        raise TooManyRequests(retry_after=30)

    @app.get("/closed")
    def closed() -> str:
        raise ServiceUnavailable(retry_after=60)

    @app.get("/strike")
    def strike() -> str:
        raise TeapotOnStrike

    @app.post("/echo")
    def echo() -> str:
        return request.form["text"]

    return app.test_client()


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 413, 418, 429, 500, 503])
def test_error_is_a_page_in_the_layout(client: FlaskClient, code: int) -> None:
    response = client.get(f"/abort/{code}")

    assert response.status_code == code
    assert response.mimetype == "text/html"
    assert f'<p class="error-code">{code}</p>' in response.text
    assert '<main id="content"' in response.text


@pytest.mark.parametrize("code", [400, 404, 413, 500])
@pytest.mark.parametrize("accept", ["application/json", "application/problem+json"])
def test_error_is_json_for_whoever_asks(client: FlaskClient, code: int, accept: str) -> None:
    response = client.get(f"/abort/{code}", headers={"Accept": accept})

    assert response.status_code == code
    assert response.mimetype == "application/problem+json"
    assert response.json is not None
    assert set(response.json) == {"title", "status", "detail"}
    assert response.json["status"] == code
    assert "Accept" in response.vary


def test_api_path_answers_in_json(client: FlaskClient) -> None:
    response = client.get("/api/nothing", headers={"Accept": "text/html"})

    assert response.status_code == 404
    assert response.mimetype == "application/problem+json"


def test_browser_gets_a_page(client: FlaskClient) -> None:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

    assert client.get("/nothing", headers={"Accept": accept}).mimetype == "text/html"
    assert client.get("/nothing", headers={"Accept": "*/*"}).mimetype == "text/html"


def test_unknown_code_has_a_page(client: FlaskClient) -> None:
    response = client.get("/strike")

    assert response.status_code == 499
    assert "Not today." in response.text


@pytest.mark.parametrize("headers", [{}, JSON])
def test_headers_of_an_error_are_kept(client: FlaskClient, headers: dict[str, str]) -> None:
    assert client.get("/busy", headers=headers).headers["Retry-After"] == "30"
    assert client.get("/closed", headers=headers).headers["Retry-After"] == "60"
    response = client.delete("/crash", headers=headers)
    assert response.status_code == 405
    assert response.allow == {"GET", "HEAD", "OPTIONS"}


def test_request_that_is_too_large_has_a_page(app: Flask, client: FlaskClient) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 10

    response = client.post("/echo", data={"text": "more than ten bytes"})

    assert response.status_code == 413
    assert "Content Too Large" in response.text or "Request Entity Too Large" in response.text


@pytest.mark.parametrize("path", ["/crash", "/api/crash"])
def test_crash_is_logged_and_not_shown(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    response = client.get(path)

    assert response.status_code == 500
    assert "swordfish" not in response.text
    assert "RuntimeError" not in response.text
    assert "swordfish" in caplog.text
    assert "Traceback" in caplog.text


def test_error_page_that_cannot_be_rendered_is_plain(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.context_processor
    def broken() -> dict[str, str]:
        raise RuntimeError("no template today")

    response = client.get("/crash")

    assert response.status_code == 500
    assert "<h1>Internal Server Error</h1>" in response.text
    assert "no template today" not in response.text
    assert "The page for an error 500 cannot be rendered" in caplog.text


def test_error_page_shows_a_description_as_text(app: Flask, client: FlaskClient) -> None:
    @app.get("/markup")
    def markup() -> str:
        abort(400, "<script>alert(1)</script>")

    assert "<script>" not in client.get("/markup").text


def test_host_that_is_not_trusted_gets_a_plain_page(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    app.config["TRUSTED_HOSTS"] = ["example.com"]

    with caplog.at_level(logging.ERROR):
        response = client.get("/", headers={"Host": "evil.example"})

    assert response.status_code == 400
    assert "<h1>Bad Request</h1>" in response.text
    assert caplog.records == []
