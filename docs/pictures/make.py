"""Take the README's pictures of a real run: ``uv run --with pyte docs/pictures/make.py``.

Copies the template as a person does, at a real terminal, pressing Enter at each question; starts the
project; and photographs both with Debian's ``chromium``.
"""

import html
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import pexpect
import pyte

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COLUMNS, LINES = 92, 24
COMMAND = "copier copy gh:org/flask-starter myapp"
COLOURS = {"green": "#7fd79b", "brown": "#f0b866", "red": "#ff9a92", "cyan": "#6fd0d8", "blue": "#8ab4f8"}
PORT = 5999


def run(*words: str, cwd: Path) -> None:
    """Run a command that has to work."""
    subprocess.run(words, cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def photograph(address: str, picture: Path, width: int, height: int) -> None:
    """Take a picture of a page in a window of its own."""
    with tempfile.TemporaryDirectory() as profile:
        run(
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--screenshot={picture}", address),
            cwd=HERE,
        )


def copy(folder: Path) -> pyte.Screen:
    """Type the command, press Enter until it ends, and return what the terminal then shows."""
    git, settings = folder / "gitconfig", folder / "settings.yml"
    git.write_text(
        "[user]\nname = Ada Lovelace\nemail = ada@example.com\n"
        f'[url "{(folder / "flask-starter").as_uri()}"]\ninsteadOf = https://github.com/org/flask-starter.git\n'
    )
    settings.write_text("trust: ['gh:org/']\n")
    environment = os.environ | {
        "GIT_CONFIG_GLOBAL": str(git),
        "COPIER_SETTINGS_PATH": str(settings),
        "PWD": str(folder),
        "TERM": "xterm-256color",
    }
    environment.pop("VIRTUAL_ENV", None)
    screen = pyte.HistoryScreen(COLUMNS, LINES)
    stream = pyte.Stream(screen)
    stream.feed(f"$ {COMMAND}\r\n")
    words = COMMAND.split()
    person = pexpect.spawn(
        words[0], words[1:], cwd=str(folder), env=environment, dimensions=(LINES, COLUMNS), encoding="utf-8"
    )
    asked = ""
    while True:
        try:
            seen = person.read_nonblocking(65536, timeout=0.5)
        except pexpect.TIMEOUT:
            if "Copying from" not in asked:
                person.send("\r")
            continue
        except pexpect.EOF:
            return screen
        asked += seen
        # A terminal answers the question where its cursor is; ours is always at home.
        for _ in re.findall(r"\x1b\[6n", seen):
            person.send("\x1b[1;1R")
        stream.feed(seen.replace("\x1b[6n", ""))


def page(screen: pyte.Screen) -> str:
    """The screen as a page."""
    lines = []
    for row in range(screen.lines):
        line = ""
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            colour = COLOURS.get(cell.fg, f"#{cell.fg}" if re.fullmatch("[0-9a-f]{6}", cell.fg) else "")
            style = f"color:{colour};" * bool(colour) + "font-weight:bold" * cell.bold
            line += f'<span style="{style}">{html.escape(cell.data)}</span>' if style else html.escape(cell.data)
        lines.append(line.rstrip())
    text = "\n".join(lines).strip("\n")
    return (
        '<!doctype html><meta charset="utf-8"><body style="margin:0;background:#12181a">'
        "<pre style=\"margin:0;padding:20px 24px;color:#e8edec;font:15px/1.45 'DejaVu Sans Mono',monospace\">"
        f"{text}</pre>"
    )


def main() -> None:
    """Make the pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run("git", "clone", "--quiet", str(ROOT), str(folder / "flask-starter"), cwd=ROOT)
        run("git", "tag", "--force", "v9.9.9", cwd=folder / "flask-starter")
        screen = copy(folder)
        (folder / "terminal.html").write_text(page(screen), encoding="utf-8")
        used = [row for row in range(screen.lines) if any(cell.data.strip() for cell in screen.buffer[row].values())]
        photograph((folder / "terminal.html").as_uri(), HERE / "terminal.png", 900, 45 + 22 * (used[-1] - used[0] + 1))

        flask = folder / "myapp" / ".venv" / "bin" / "flask"
        with subprocess.Popen(
            [flask, "run", "--debug", "--no-reload", f"--port={PORT}"], cwd=folder / "myapp"
        ) as server:
            time.sleep(3)
            photograph(f"http://127.0.0.1:{PORT}/", HERE / "home.png", 1200, 1000)
            photograph(f"http://127.0.0.1:{PORT}/tour/", HERE / "tour.png", 1280, 1000)
            photograph(f"http://127.0.0.1:{PORT}/tour/methods", HERE / "tour-page.png", 1280, 1000)
            server.terminate()


if __name__ == "__main__":
    main()
