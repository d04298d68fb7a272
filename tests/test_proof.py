"""The page that shows the proof speaks of the template as it is."""

from proof import PAGE, Figures


def test_page_counts_what_there_is() -> None:
    page = PAGE.read_text(encoding="utf-8")

    for what, number in Figures({}).possible().items():
        assert f"| {what} | {number} of {number} |" in page, "uv run python tests/proof.py"
