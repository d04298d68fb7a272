"""The home page."""

import platform
from importlib.metadata import version

from flask import Blueprint, render_template

bp = Blueprint("home", __name__)

FLASK_VERSION = version("flask")  # read from a file, so once


@bp.get("/")
def index() -> str:
    """Greet whoever started the project, until it has a home page of its own."""
    return render_template(
        "home.html", flask_version=FLASK_VERSION, python_version=platform.python_version()
    )
