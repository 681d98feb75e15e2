"""The blocks of code in README and docs, and the site that they make of `startproject`."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.servers import ROOT

DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", *sorted(DOCS.glob("*/*.md")), DOCS / "index.md"]
}
EXISTING_SITE = "docs/howto/existing-site.md"

CONSUMERS = """
from channels.generic.websocket import AsyncWebsocketConsumer


class ChatConsumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data, bytes_data=bytes_data)
"""
SETTINGS_MODULE = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")\n'


class Block(NamedTuple):
    page: str
    language: str
    code: str


BLOCKS = [
    Block(page, *found)
    for page, text in PAGES.items()
    for found in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)
]
seen: set[tuple[str, str]] = set()  # language and code: a page may repeat a block of another


def block(language: str, start: str, page: str = "") -> str:
    """Return the one block that contains `start`, of that page or of all, and record its test."""
    found = {
        (b.language, b.code)
        for b in BLOCKS
        if b.language == language and start in b.code and page in ("", b.page)
    }
    assert len(found) == 1, found
    seen.update(found)
    return found.pop()[1]


def missing(request: pytest.FixtureRequest, pages: Iterable[str]) -> list[Block]:
    """Return the blocks of the pages that no test of the module has used, if all have run."""
    written = {name for name in vars(request.module) if name.startswith("test_")}
    selected = {
        item.originalname for item in request.session.items if item.module is request.module
    }
    if written - selected:
        return []
    return [b for b in BLOCKS if b.page in pages and (b.language, b.code) not in seen]


def run(command: str, folder: Path = ROOT, **environment: str) -> str:
    command = re.sub(r"^python ", f"{sys.executable} ", command)
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        text=True,
        timeout=180,
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_site(folder: Path) -> None:
    """Create a new site there, with a consumer of its own, and apply the guide's three edits."""
    run("python -m django startproject mysite .", folder)
    (folder / "chat").mkdir()
    (folder / "chat" / "consumers.py").write_text(CONSUMERS)
    for name, start in {"settings": "ASGI_APPLICATION", "urls": "urlpatterns +="}.items():
        file = folder / "mysite" / f"{name}.py"
        file.write_text(file.read_text() + block("python", start, EXISTING_SITE))
    asgi = SETTINGS_MODULE + block("python", "ProtocolTypeRouter", EXISTING_SITE)
    (folder / "mysite" / "asgi.py").write_text(asgi)
