"""What we sell."""

from babel.numbers import format_decimal
from flask import Blueprint, current_app, render_template

bp = Blueprint("catalog", __name__, url_prefix="/catalog", template_folder="templates")


@bp.get("/")
def index() -> str:
    """Show the catalog's first page."""
    size = format_decimal(current_app.config["CATALOG_PAGE_SIZE"], locale="en")
    return render_template("catalog/index.html", size=size)
