"""Files from visitors: few, small, renamed, and given back only as downloads."""

import secrets
from pathlib import Path

from flask import Response, current_app, flash, redirect, request, send_from_directory, url_for
from flask.typing import ResponseReturnValue
from werkzeug.utils import secure_filename

from .blueprint import bp
from .pages import page

MAX_BYTES = 1024 * 1024
MAX_FILES = 10


def folder() -> Path:
    """Name the folder, which no URL serves by itself."""
    path = Path(current_app.instance_path, "uploads")
    path.mkdir(parents=True, exist_ok=True)
    return path


@bp.get("/uploads")
def uploads(problem: str = "") -> str:
    """List what was sent."""
    names = sorted(path.name for path in folder().iterdir())
    limits = {"max_bytes": MAX_BYTES, "max_files": MAX_FILES}
    return page("uploads", folder, names=names, problem=problem, **limits)


@bp.post("/uploads")
def upload() -> ResponseReturnValue:
    """Store a file, or say why not."""
    file = request.files.get("file")
    if file is None or not file.filename:
        return uploads("No file came, or one without a name: choose one first."), 400
    content = file.read(MAX_BYTES + 1)
    if not content:
        return uploads("The file is empty: choose one with something in it."), 400
    if len(content) > MAX_BYTES:
        return uploads(f"The file is larger than {MAX_BYTES // 1024} KiB: choose another."), 413
    # Random, so that two names never meet; secured, so that none leaves the folder.
    name = secrets.token_hex(8) + "-" + (secure_filename(file.filename)[-80:] or "file")
    path = Path(folder(), name)
    path.write_bytes(content)
    # Counted last, as others may upload at the same time.
    if len(list(folder().iterdir())) > MAX_FILES:
        path.unlink(missing_ok=True)
        return uploads(f"There are {MAX_FILES} files already: delete one first."), 409
    flash("The file is stored.", "success")
    return redirect(url_for("tour.uploads"))


@bp.get("/uploads/<name>")
def download(name: str) -> Response:
    """Give a file back, to be saved and never to be run."""
    response = send_from_directory(
        folder(),
        name,
        mimetype="application/octet-stream",
        as_attachment=True,
        download_name=name.partition("-")[2],
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@bp.post("/uploads/<name>/delete")
def delete_upload(name: str) -> ResponseReturnValue:
    """Make room again."""
    for path in folder().iterdir():
        if path.name == name:
            path.unlink(missing_ok=True)
    flash("The file is deleted.", "success")
    return redirect(url_for("tour.uploads"))
