"""The README's blocks of code, and the site that they make of `startproject`."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.servers import ROOT

README = (ROOT / "README.md").read_text()
CONSUMERS = """
from channels.generic.websocket import AsyncWebsocketConsumer


class ChatConsumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data, bytes_data=bytes_data)
"""
SETTINGS_MODULE = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")\n'


class Block(NamedTuple):
    language: str
    code: str


BLOCKS = [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)]
seen: set[Block] = set()


def block(language: str, start: str) -> str:
    """Return the code of the one block that has these words, and note that it is tested."""
    found = [b for b in BLOCKS if b.language == language and start in b.code]
    assert len(found) == 1, found
    seen.add(found[0])
    return found[0].code


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
    """Make a fresh site there, with a consumer of its own, and do the README's three edits."""
    run("python -m django startproject mysite .", folder)
    (folder / "chat").mkdir()
    (folder / "chat" / "consumers.py").write_text(CONSUMERS)
    for name, start in {"settings": "ASGI_APPLICATION", "urls": "urlpatterns +="}.items():
        file = folder / "mysite" / f"{name}.py"
        file.write_text(file.read_text() + block("python", start))
    asgi = SETTINGS_MODULE + block("python", "ProtocolTypeRouter")
    (folder / "mysite" / "asgi.py").write_text(asgi)
