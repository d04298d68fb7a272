"""What another site makes a browser send changes nothing."""

import pytest
from flask import Flask
from flask.testing import FlaskClient


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    @app.route("/change", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def change() -> str:
        return "changed"

    return app.test_client()


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "made-up"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "null"},
        {"Origin": ""},
    ],
)
def test_cross_site_request_is_refused(client: FlaskClient, headers: dict[str, str]) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        response = client.open("/change", method=method, headers=headers)

        assert response.status_code == 403
        assert "came from another site" in response.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
        {"Origin": "https://localhost"},  # a proxy ended TLS
        {},  # no browser
    ],
)
def test_own_request_passes(client: FlaskClient, headers: dict[str, str]) -> None:
    assert client.post("/change", headers=headers).text == "changed"


def test_safe_method_passes(client: FlaskClient) -> None:
    assert client.get("/change", headers={"Sec-Fetch-Site": "cross-site"}).text == "changed"


def test_trusted_origin_passes(app: Flask, client: FlaskClient) -> None:
    app.config["CSRF_TRUSTED_ORIGINS"] = ["https://accounts.example.com"]
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://accounts.example.com"}

    assert client.post("/change", headers=headers).text == "changed"
