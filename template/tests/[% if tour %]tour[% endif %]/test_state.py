"""Cookies, sessions and flashed messages."""

import pytest
from flask.testing import FlaskClient

COOKIE = "__Host-session"


@pytest.mark.parametrize("debug", [False, True])
def test_cookie_is_set_with_its_flags(
    monkeypatch: pytest.MonkeyPatch, client: FlaskClient, debug: bool
) -> None:
    monkeypatch.setitem(client.application.config, "DEBUG", debug)

    response = client.post("/tour/cookies", data={"biscuit": "lemon"})

    (header,) = response.headers.getlist("Set-Cookie")
    assert header.startswith("tour_biscuit=lemon; ")
    assert "HttpOnly" in header
    assert "SameSite=Lax" in header
    assert ("Secure" in header) is not debug


def test_cookie_is_read_and_deleted(client: FlaskClient) -> None:
    assert "<dd>none yet</dd>" in client.get("/tour/cookies").text

    client.post("/tour/cookies", data={"biscuit": "lemon"})
    assert "<dd>lemon</dd>" in client.get("/tour/cookies").text

    client.post("/tour/cookies")
    assert "<dd>none yet</dd>" in client.get("/tour/cookies").text


def test_unknown_biscuit_is_no_cookie(client: FlaskClient) -> None:
    client.post("/tour/cookies", data={"biscuit": "<script>"})

    assert client.get_cookie("tour_biscuit", path="/tour/cookies") is None


def test_cookie_is_set_after_the_request(client: FlaskClient) -> None:
    first = client.get("/tour/cookies")
    second = client.get("/tour/cookies")

    assert "<dd>yes</dd>" in first.text
    assert first.headers["Set-Cookie"].startswith("tour_visited=yes; ")
    assert "<dd>no</dd>" in second.text
    assert "Set-Cookie" not in second.headers


def test_visitor_signs_in_and_out(client: FlaskClient) -> None:
    client.post("/tour/session", data={"name": "<i>Ada"})

    page = client.get("/tour/session").text
    assert "Welcome back, &lt;i&gt;Ada!" in page
    assert "{&#34;tour_name&#34;:&#34;&lt;i&gt;Ada&#34;}" in page  # read without the key

    client.post("/tour/session/sign-out")
    assert "Welcome back, &lt;i&gt;Ada" not in client.get("/tour/session").text


def test_tampered_cookie_is_ignored(client: FlaskClient) -> None:
    client.post("/tour/session", data={"name": "Ada"})
    cookie = client.get_cookie(COOKIE)
    assert cookie is not None
    payload, _, signature = cookie.value.partition(".")

    client.set_cookie(COOKIE, f"{payload[:-2]}Q.{signature}")

    assert "Welcome back, Ada" not in client.get("/tour/session").text


def test_cookie_of_nonsense_is_ignored(client: FlaskClient) -> None:
    for cookie in ("x", "xxxxx", "é", ".", ".eJw.x", "\x00"):
        client.set_cookie(COOKIE, cookie)

        assert "<dd>nothing</dd>" in client.get("/tour/session").text


def test_each_category_is_flashed_once(client: FlaskClient) -> None:
    page = client.post("/tour/flash", follow_redirects=True).text

    for category in ("message", "success", "warning", "error"):
        role = "alert" if category == "error" else "status"
        assert page.count(f'class="flash flash-{category}" role="{role}"') == 1
    assert 'class="flash ' not in client.get("/tour/flash").text
