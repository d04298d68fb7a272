"""What views answer with: responses of each kind, errors, JSON."""

import pytest
from flask.testing import FlaskClient
from werkzeug.exceptions import default_exceptions

PROBLEM = "application/problem+json"


@pytest.mark.parametrize(
    ("kind", "status", "content_type", "part"),
    [
        ("string", 200, "text/html; charset=utf-8", "<h1>Text becomes a page</h1>"),
        ("dict", 200, "application/json", '"born":1815'),
        ("list", 200, "application/json", '["Ada Lovelace","Grace Hopper"]'),
        ("tuple", 201, "text/plain; charset=utf-8", "A body"),
        ("response", 200, "text/plain; charset=utf-8", "headers"),
        ("stream", 200, "text/plain; charset=utf-8", "3 …\n2 …\n1 …\nGo!"),
        ("wsgi", 200, "text/plain; charset=utf-8", "Another WSGI app"),
    ],
)
def test_return_value_becomes_a_response(
    client: FlaskClient, kind: str, status: int, content_type: str, part: str
) -> None:
    response = client.get(f"/tour/responses/{kind}")

    assert response.status_code == status
    assert response.content_type == content_type
    assert part in response.text


def test_response_has_a_header_of_its_own(client: FlaskClient) -> None:
    assert client.get("/tour/responses/response").headers["X-Tour"] == "make_response"


def test_stream_is_sent_as_it_goes(client: FlaskClient) -> None:
    response = client.get("/tour/responses/stream")

    assert response.content_length is None
    assert len(list(response.response)) == 4


def test_unknown_kind_is_not_found(client: FlaskClient) -> None:
    assert client.get("/tour/responses/tea").status_code == 404


def test_redirect_leads_to_the_errors(client: FlaskClient) -> None:
    assert client.get("/tour/redirect").location == "/tour/redirected"

    page = client.get("/tour/redirect", follow_redirects=True).text

    assert '<a href="/tour/abort/418">' in page


def test_each_error_has_our_page_and_another_number_none(client: FlaskClient) -> None:
    for number in [0, 200, 302, *range(398, 513), 599, 600, 10**9]:
        response = client.get(f"/tour/abort/{number}")

        code = number if number in default_exceptions else 404
        assert response.status_code == code
        assert f'<p class="error-code">{code}</p>' in response.text


def test_person_is_added(client: FlaskClient) -> None:
    assert client.get("/tour/api/people").json == [{"id": 1, "name": "Ada Lovelace"}]

    response = client.post("/tour/api/people", json={"name": "Grace Hopper"})

    assert response.status_code == 201
    assert response.location == "/tour/api/people/2"
    assert response.json == {"id": 2, "name": "Grace Hopper"}
    assert client.get(response.location).json == response.json


def test_unknown_person_is_not_found(client: FlaskClient) -> None:
    response = client.get("/tour/api/people/7")

    assert response.status_code == 404
    assert response.mimetype == PROBLEM


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("name=Grace", "application/x-www-form-urlencoded", 415),
        ("{", "application/json", 400),
        ("[" * 800, "application/json", 400),
        ("[" * 801, "application/json", 413),
        ('{"name": NULL}', "application/json", 400),
        ("[]", "application/json", 422),
        ("{}", "application/json", 422),
        ('{"name": 5}', "application/json", 422),
        ('{"name": ""}', "application/json", 422),
        ('{"name": "\\ud800"}', "application/json", 422),
        ('{"name": "' + "x" * 81 + '"}', "application/json", 422),
    ],
)
def test_wrong_person_is_refused(
    client: FlaskClient, body: str, content_type: str, status: int
) -> None:
    response = client.post("/tour/api/people", data=body, content_type=content_type)

    assert response.status_code == status
    assert response.mimetype == PROBLEM
    assert response.json is not None
    assert response.json["status"] == status


def test_only_fifty_people_are_known(client: FlaskClient) -> None:
    for number in range(60):
        client.post("/tour/api/people", json={"name": f"Person {number}"})

    people = client.get("/tour/api/people").json

    assert people is not None
    assert [person["id"] for person in people] == list(range(12, 62))
