"""The tour's blueprint: views, static files and templates below one address."""

from flask import Blueprint, Flask

bp = Blueprint(
    "tour", __name__, url_prefix="/tour", static_folder="static", template_folder="templates"
)


def init_app(app: Flask) -> None:
    """Open the tour, once every view is on the blueprint."""
    app.register_blueprint(bp)
