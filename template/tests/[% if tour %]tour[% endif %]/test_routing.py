"""Addresses and methods."""

import pytest
from flask.testing import FlaskClient

UUID = "7f9a3c52-8f0e-4c7b-9d1e-5a64b0c2e813"


@pytest.mark.parametrize(
    ("path", "value", "kind"),
    [
        ("string/lovelace", "lovelace", "str"),
        ("int/42", "42", "int"),
        ("float/3.50", "3.5", "float"),
        ("path/a/b/c", "a/b/c", "str"),
        (f"uuid/{UUID}", UUID, "UUID"),
    ],
)
def test_rule_converts(client: FlaskClient, path: str, value: str, kind: str) -> None:
    page = client.get(f"/tour/rules/{path}").text

    assert f"<dd>{value}</dd>" in page
    assert f"<dd>{kind}</dd>" in page


@pytest.mark.parametrize(
    "path", ["int/forty-two", "int/-1", "int/1.5", "float/1", "string/a/b", "uuid/42"]
)
def test_rule_does_not_match(client: FlaskClient, path: str) -> None:
    assert client.get(f"/tour/rules/{path}").status_code == 404


def test_slash_is_canonical(client: FlaskClient) -> None:
    response = client.get("/tour/projects")

    assert response.status_code == 308
    assert response.location == "http://localhost/tour/projects/"
    assert "<dd>/tour/projects/</dd>" in client.get("/tour/projects/").text
    assert "<dd>/tour/about</dd>" in client.get("/tour/about").text
    assert client.get("/tour/about/").status_code == 404


def test_urls_are_built(client: FlaskClient) -> None:
    page = client.get("/tour/urls").text

    for url in (
        "/tour/",
        "/tour/hello/Ada",
        "/tour/search?q=flask",
        "/tour/hello/Ada%20&amp;%20%CE%A9%3F",
        "http://localhost/tour/urls",
        "/tour/urls#code",
    ):
        assert f"<dd>{url}</dd>" in page


def test_form_is_shown_and_answered(client: FlaskClient) -> None:
    assert "<dd>GET</dd>" in client.get("/tour/methods").text

    page = client.post("/tour/methods", data={"word": "<b>"}).text

    assert "<dd>POST</dd>" in page
    assert "POST brought “&lt;b&gt;”" in page


def test_head_and_options_come_for_free(client: FlaskClient) -> None:
    assert client.head("/tour/methods").data == b""
    assert set(client.options("/tour/methods").allow) == {"GET", "HEAD", "OPTIONS", "POST"}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("text/html", "text/html"), ("application/json", "application/problem+json")],
)
def test_other_method_is_refused(client: FlaskClient, accept: str, kind: str) -> None:
    response = client.delete("/tour/methods", headers={"Accept": accept})

    assert response.status_code == 405
    assert response.mimetype == kind
    assert set(response.allow) == {"GET", "HEAD", "OPTIONS", "POST"}


def test_stylesheets_have_addresses(client: FlaskClient) -> None:
    page = client.get("/tour/static-files").text

    for path in ("/static/style.css", "/tour/static/tour.css"):
        assert f"<dd>{path}" in page
        response = client.get(path)
        assert response.mimetype == "text/css"
        response.close()


def test_name_arrives_as_text(client: FlaskClient) -> None:
    assert "Hello, whoever you are!" in client.get("/tour/hello/").text

    page = client.get("/tour/hello/%3Cscript%3E").text

    assert "Hello, &lt;script&gt;!" in page
    assert "<script" not in page
