"""The tour in a real browser, walked as a person walks it."""

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import run
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, ViewportSize, expect, sync_playwright
from questionnaire import Questionnaire
from test_server import serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and "REQUIRE_CHROMIUM" not in os.environ,
        reason="no Chromium here: `apt-get install chromium` brings one",
    ),
    pytest.mark.skipif(sys.platform == "win32", reason="the server is stopped by a signal"),
]
PAGES = 21
NARROW: ViewportSize = {"width": 360, "height": 740}
WIDE: ViewportSize = {"width": 1280, "height": 900}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
COLOURS = {"runOnly": ["color-contrast"]}
WRAPPED = """all => all.filter(code => (code.style.whiteSpace = "pre") && code.scrollWidth > code.clientWidth)
    .map(code => code.innerText)"""
BROKEN = """all => all.flatMap(code => [...code.childNodes]).filter(part => part.data && !part.data.includes(" "))
    .filter(part => {
        const range = document.createRange();
        range.selectNode(part);
        return range.getClientRects().length > 1;
    }).map(part => part.data)"""


@pytest.fixture(scope="module")
def tour(questionnaire: Questionnaire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the tour of a default project, which runs as its README says."""
    folder = tmp_path_factory.mktemp("browser") / "myapp"
    questionnaire.write(folder)
    run("uv", "sync", cwd=folder)
    run(folder / ".venv" / "bin" / "flask", "db", "upgrade", cwd=folder)
    with serving(folder, "flask", "run", "--debug", "--no-reload", "--port={port}") as port:
        yield f"http://127.0.0.1:{port}/tour/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


class Complaints(list[str]):
    """What a browser complains of; a page of an error that was asked for is none."""

    def listen(self, page: Page) -> None:
        """Note errors of scripts and of the console, failed requests and bad answers."""
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("console", self.note_message)
        page.on("requestfailed", self.note_failure)
        page.on("response", self.note_answer)

    def note_message(self, message: ConsoleMessage) -> None:
        """Note what stands in the console in red or yellow."""
        if message.type in {"error", "warning"}:
            self.append(message.text)

    def note_answer(self, answer: Response) -> None:
        """Note an error of HTTP."""
        if answer.status >= 400:
            self.append(f"{answer.status} {answer.url}")

    def note_failure(self, request: Request) -> None:
        """Note a request without an answer; a download ends the visit of a page that way."""
        if request.failure != "net::ERR_ABORTED":
            self.append(f"{request.failure} {request.url}")


@pytest.fixture
def complaints() -> Complaints:
    """None so far."""
    return Complaints()


@pytest.fixture
def page(browser: Browser, complaints: Complaints) -> Iterator[Page]:
    """A person's own browser: no cookies, complaints noted, and in the end none."""
    context = browser.new_context(viewport=WIDE, color_scheme="light", reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(10_000)
    complaints.listen(page)
    yield page
    context.close()
    assert not complaints


def violations(page: Page, axe: str, rules: dict[str, Any]) -> list[str]:
    """What axe finds wrong, with the elements."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(axe)
    found = page.evaluate("rules => axe.run(rules)", rules)["violations"]
    return [f"{page.url}: {item['help']}: {[node['html'] for node in item['nodes']]}" for item in found]


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, from its package."""
    package = importlib.util.find_spec("axe_playwright_python")
    assert package
    assert package.origin
    return Path(package.origin).with_name("axe.min.js").read_text(encoding="utf-8")


def follow(page: Page) -> bool:
    """Go to the next page, if there is one."""
    link = page.locator("a[rel=next]")
    if not link.count():
        return False
    title = page.locator("h1").inner_text()
    link.click()
    expect(page.locator("h1")).not_to_have_text(title)
    return True


def test_home_page_leads_through_the_whole_tour_and_back(page: Page, tour: str) -> None:
    page.goto(tour.removesuffix("tour/"))
    page.get_by_role("link", name="Take the tour").click()
    titles = [page.locator("h1").inner_text()]
    while follow(page):
        titles.append(page.locator("h1").inner_text())
        assert page.locator(".tour-code").first.is_visible()
    assert len(titles) == len(set(titles)) == PAGES

    for title in reversed(titles[:-1]):
        page.locator("a[rel=prev]").click()
        expect(page.locator("h1")).to_have_text(title)


def test_axe_finds_nothing_light_dark_and_narrow(page: Page, tour: str, axe: str) -> None:
    page.goto(tour)
    found = []
    while True:
        for summary in page.locator("summary").all():
            summary.click()
        found += violations(page, axe, RULES)
        page.emulate_media(color_scheme="dark")
        found += violations(page, axe, COLOURS)
        page.set_viewport_size(NARROW)
        assert page.evaluate("document.documentElement.scrollWidth") == 360, page.url
        found += violations(page, axe, RULES)
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(WIDE)
        if not follow(page):
            break
    assert not found


@pytest.mark.parametrize("width", [1280, 1200])
def test_each_line_of_code_has_room(page: Page, tour: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(tour)
    while True:
        assert page.locator("section[aria-labelledby=code] > .tour-code").evaluate_all(WRAPPED) == [], page.url
        if not follow(page):
            break


@pytest.mark.parametrize("width", [1280, 1200, 360])
def test_paths_on_the_home_page_break_between_words(page: Page, tour: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(tour.removesuffix("tour/"))
    assert page.locator(".steps code").count() > 3
    assert page.locator(".steps code").evaluate_all(BROKEN) == []


@pytest.mark.parametrize("path", ["flash", "uploads", "session", "guestbook", "search?q=x", "abort/404"])
def test_axe_finds_nothing_after_a_form_was_sent(browser: Browser, tour: str, axe: str, path: str) -> None:
    context = browser.new_context(viewport=NARROW, color_scheme="dark", reduced_motion="reduce")
    page = context.new_page()
    page.goto(tour + path)
    if path == "flash":
        page.get_by_role("button").click()
    elif path == "uploads":
        page.locator("input").evaluate("input => input.required = false")
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_role("alert")).to_contain_text("choose one first")
    elif path == "session":
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button").click()
    elif path == "guestbook":
        page.get_by_label("Your name").fill("Ada Lovelace")
        page.get_by_label("Your message").fill("x" * 500)
        page.get_by_role("button", name="Sign").click()
    page.wait_for_load_state()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert not violations(page, axe, RULES)
    page.emulate_media(color_scheme="light")
    assert not violations(page, axe, COLOURS)
    if path == "guestbook":
        page.get_by_role("button", name="Delete").click()
    context.close()


def test_every_link_to_try_leads_somewhere(page: Page, tour: str, complaints: Complaints) -> None:
    page.goto(tour)
    links: dict[str, str] = {}
    while True:
        for entry in page.locator(".tour-tries li, .tour-grid li").all():
            links[str(entry.locator("a").get_attribute("href"))] = entry.inner_text()
        if not follow(page):
            break
    assert len(links) > 50
    for link, text in links.items():
        promised = re.search(r"\b([345]\d\d)\b", text)
        status = 201 if link.endswith("/tuple") else int(promised[1]) if promised else 200
        answer = page.request.get(tour.removesuffix("/tour/") + link, max_redirects=0)
        assert answer.status == status, link


def test_methods_and_form_answer(page: Page, tour: str, complaints: Complaints) -> None:
    page.goto(tour + "methods")
    page.get_by_label("A word").fill("<b>word</b>")
    page.get_by_role("button").click()
    expect(page.get_by_role("status")).to_have_text("POST brought “<b>word</b>”.")

    page.goto(tour + "form")
    page.get_by_label("Your name").fill("Ada Lovelace")
    page.get_by_role("button", name="Send it", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Ada Lovelace")
    assert not complaints
    page.get_by_role("button", name="Send it without").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Bad Request")
    assert all("400" in complaint for complaint in complaints)
    complaints.clear()


def test_search_finds_and_keeps_its_address(page: Page, tour: str) -> None:
    page.goto(tour + "search")
    page.get_by_label("Look for").fill("cookie")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=cookie")
    page.get_by_role("link", name="Cookies", exact=True).click()
    expect(page.locator("h1")).to_have_text("Cookies")


def test_file_is_uploaded_downloaded_and_deleted(page: Page, tour: str) -> None:
    page.goto(tour + "uploads")
    page.set_input_files(
        "input[type=file]", {"name": "notes of ada.txt", "mimeType": "text/plain", "buffer": b"An engine"}
    )
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("status")).to_have_text("The file is stored.")

    with page.expect_download() as download:
        page.locator(".tour-rows a").click()
    assert download.value.suggested_filename == "notes_of_ada.txt"
    assert Path(download.value.path()).read_bytes() == b"An engine"

    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_have_text("The file is deleted.")
    expect(page.locator(".tour-rows")).to_have_text("Nothing was sent yet.")


def test_file_that_is_too_large_gets_a_clear_answer(page: Page, tour: str, complaints: Complaints) -> None:
    page.goto(tour + "uploads")
    page.set_input_files(
        "input[type=file]", {"name": "large.bin", "mimeType": "application/octet-stream", "buffer": bytes(3_000_000)}
    )
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("alert")).to_contain_text("larger than 1024 KiB")
    assert all("413" in complaint for complaint in complaints)
    complaints.clear()


def test_cookie_is_taken_and_given_back(page: Page, tour: str) -> None:
    page.goto(tour + "cookies")
    facts = page.locator(".tour-facts")
    expect(facts).to_contain_text("none yet")
    expect(facts).to_contain_text("yes")
    page.get_by_label("A biscuit").select_option("lemon")
    page.get_by_role("button", name="Take it").click()
    expect(facts).to_contain_text("lemon")
    cookies = {cookie.get("name"): cookie for cookie in page.context.cookies(page.url)}
    assert set(cookies) == {"tour_biscuit", "tour_visited"}
    for cookie in cookies.values():
        assert cookie.get("httpOnly")
        assert cookie.get("sameSite") == "Lax"
    page.get_by_role("button", name="Give it back").click()
    expect(facts).to_contain_text("none yet")


def test_visitor_signs_in_and_out(page: Page, tour: str) -> None:
    page.goto(tour + "session")
    page.get_by_label("Your name").fill("Ada Lovelace")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".tour-result")).to_have_text("Welcome back, Ada Lovelace!")
    expect(page.locator(".tour-facts")).to_contain_text('{"tour_name":"Ada Lovelace"}')
    page.reload()
    expect(page.locator(".tour-result")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Your name")).to_be_visible()


def test_each_flash_shows_once(page: Page, tour: str) -> None:
    page.goto(tour + "flash")
    page.get_by_role("button").click()
    expect(page.locator(".flash")).to_have_count(4)
    expect(page.get_by_role("status")).to_have_count(3)
    expect(page.get_by_role("alert")).to_have_count(1)
    page.reload()
    expect(page.locator(".flash")).to_have_count(0)


def test_guestbook_is_signed_leafed_through_and_emptied(page: Page, tour: str) -> None:
    page.goto(tour + "guestbook")
    for number in range(6):
        page.get_by_label("Your name").fill(f"Guest {number}")
        page.get_by_label("Your message").fill("Hello\n<b>there</b>")
        page.get_by_role("button", name="Sign").click()
        expect(page.locator(".tour-rows strong").first).to_have_text(f"Guest {number}")
    page.get_by_role("link", name="Older").click()
    expect(page.locator(".tour-rows strong")).to_have_text(["Guest 0"])
    page.get_by_role("link", name="Newer").click()
    for number in range(5, -1, -1):
        page.get_by_role("button", name="Delete").first.click()
        expect(page.get_by_role("heading", name=f"{number} in the book")).to_be_visible()


def test_keyboard_is_enough(page: Page, tour: str) -> None:
    page.goto(tour + "methods")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("A word")).to_be_focused()
    page.keyboard.type("engine")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("engine")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.rel") == "next":
            break
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Static files")


def test_code_is_legible_without_javascript(browser: Browser, tour: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(tour + "methods")
    expect(page.locator(".tour-code").last).to_be_attached()
    assert "def methods() -> str:" in page.locator(".tour-columns").inner_text()
    page.locator("summary").click()
    expect(page.get_by_role("region", name="The template")).to_contain_text('<form class="tour-form" method="post">')
    context.close()


PAYMENT = """
from flask import redirect, request
from werkzeug.wrappers import Response


@bp.route("/pay", methods=["GET", "POST"])
def pay() -> Response | str:
    if request.method == "POST":
        return redirect(f"http://localhost:{request.host.rpartition(':')[2]}/paid", 303)
    return '<form method="post"><button>Pay</button></form>'


@bp.get("/paid")
def paid() -> str:
    return "<h1>Paid</h1>"
"""


@pytest.mark.parametrize("allowed", [False, True])
def test_form_that_redirects_to_another_site_needs_its_origin_in_the_policy(
    questionnaire: Questionnaire, tmp_path: Path, browser: Browser, allowed: bool
) -> None:
    """As the README says; the setting is the line of .env.example."""
    folder = tmp_path / "myapp"
    questionnaire.write(folder, database="none")
    run("uv", "sync", cwd=folder)
    home = folder / "src/myapp/home.py"
    home.write_text(home.read_text() + PAYMENT)
    example = re.search(
        r'^# (FLASK_CONTENT_SECURITY_POLICY=".*")$', (folder / ".env.example").read_text(), re.MULTILINE
    )
    assert example
    if allowed:
        (folder / ".env").write_text(example[1].replace("https://pay.example.com", "http://localhost:*"))

    with serving(folder, "flask", "run", "--debug", "--no-reload", "--port={port}") as port:
        page = browser.new_page()
        complaints = Complaints()
        complaints.listen(page)
        page.goto(f"http://127.0.0.1:{port}/pay")
        page.get_by_role("button").click()
        if allowed:
            expect(page.get_by_role("heading")).to_have_text("Paid")
            assert page.url == f"http://localhost:{port}/paid"
            assert not any("form-action" in complaint for complaint in complaints)
        else:
            page.wait_for_timeout(1000)
            assert page.get_by_role("heading").count() == 0
            assert any("form-action" in complaint for complaint in complaints)
            assert "mentions `form-action`" in (folder / "README.md").read_text()
        page.close()
