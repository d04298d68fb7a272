"""The WSGI callable: what gunicorn, Waitress or mod_wsgi serve."""

from . import create_app

app = create_app()
