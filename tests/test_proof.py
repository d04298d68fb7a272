"""The page that shows the proof speaks of the template as it is."""

import re

from conftest import ROOT
from proof import PAGE, Figures


def test_page_counts_what_there_is() -> None:
    page = PAGE.read_text(encoding="utf-8")

    for what, number in Figures({}).possible().items():
        # A Python that is not out everywhere yet may leave some cases to other machines.
        assert re.search(rf"^\| {re.escape(what)} \| \d+ of {number} \|$", page, re.MULTILINE), (
            "the page is out of date: run all tests, then uv run python tests/proof.py"
        )


def test_readme_quotes_the_page() -> None:
    counts = Figures({}).possible()
    sentence = re.search(
        r"all (\d+) combinations .* each of the (\d+) pairs .* each of (\d+) faults",
        (ROOT / "README.md").read_text(encoding="utf-8"),
    )

    assert sentence
    assert [int(number) for number in sentence.groups()] == [
        next(number for what, number in counts.items() if what.startswith(word))
        for word in ("Combinations", "Pairs", "Faults")
    ]
