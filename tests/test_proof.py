"""The page that shows the proof speaks of the template as it is."""

import re

from proof import PAGE, Figures


def test_page_counts_what_there_is() -> None:
    page = PAGE.read_text(encoding="utf-8")

    for what, number in Figures({}).possible().items():
        # A Python that is not out everywhere yet may leave some cases to other machines.
        assert re.search(rf"^\| {re.escape(what)} \| \d+ of {number} \|$", page, re.MULTILINE), (
            "the page is out of date: run all tests, then uv run python tests/proof.py"
        )
