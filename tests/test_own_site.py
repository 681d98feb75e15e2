"""docs/tutorial/first-site.md, followed word for word: from startproject to nginx."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests import readme
from tests.nginx import nginx
from tests.raw import Client
from tests.readme import run
from tests.servers import ROOT, Server
from tests.waiting import eventually

PAGE = "docs/tutorial/first-site.md"
BLOCKS = [b for b in readme.BLOCKS if b.page == PAGE]


@pytest.fixture(scope="module", autouse=True)
def all_blocks_are_tested(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    assert readme.missing(request, [PAGE]) == []


def block(language: str, start: str) -> str:
    return readme.block(language, start, PAGE)


@pytest.fixture
def site(tmp_path: Path, redis_url: str) -> tuple[Path, dict[str, str]]:
    """The folder that the page makes, and the environment of its processes."""
    environment = {
        "PYTHONPATH": str(ROOT),
        "ECHO_STATE_URL": redis_url,
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
    }
    for line in block("sh", "startproject").splitlines()[3:]:
        run(line.replace("django-admin", f"{sys.executable} -m django"), tmp_path)
    for language in ("python", "html"):
        for code in (b.code for b in BLOCKS if b.language == language):
            readme.seen.add((language, code))
            path = re.match(r"(?:# |{# )(\S+)", code)[1]
            written = tmp_path / path
            before = written.read_text() if path == "mysite/settings.py" else ""
            written.write_text(before + code)
    migrate, *others = block("sh", "createsuperuser").splitlines()
    run(f"{migrate} -v 0", tmp_path, **environment)
    assert others == ["python manage.py createsuperuser", "python manage.py runserver"]
    return tmp_path, environment


@pytest.fixture
def behind_nginx(
    site: tuple[Path, dict[str, str]], tmp_path: Path
) -> Iterator[tuple[int, dict[str, str]]]:
    folder, environment = site
    debug, key, collect, *servers = block("sh", "collectstatic").splitlines()
    made = run(key.removeprefix("export DJANGO_SECRET_KEY=$(").removesuffix(")")).strip()
    environment |= {debug.split()[1].split("=")[0]: "0", "DJANGO_SECRET_KEY": made}
    run(collect, folder, **environment)
    assert [line.split(" -p ")[1] for line in servers] == [
        "8001 mysite.asgi:application &",
        "8002 mysite.asgi:application &",
    ]
    with (
        Server("daphne", "mysite.asgi:application", folder=folder, **environment) as one,
        Server("daphne", "mysite.asgi:application", folder=folder, **environment) as two,
    ):
        config = block("nginx", "upstream").replace("/srv/mysite", str(folder))
        config = config.replace(":8001", f":{one.port}").replace(":8002", f":{two.port}")
        with nginx(config, tmp_path) as port:
            yield port, environment


def count(port: int) -> str | int:
    """Return the number in the site's sentence, or the status while it is not known."""
    try:
        answer = urlopen(f"http://127.0.0.1:{port}/connections/lobby/getCurrentConnections")
    except HTTPError as error:
        return error.code
    return answer.read().decode().split()[2]


def test_doctor_is_content(site: tuple[Path, dict[str, str]]) -> None:
    folder, environment = site

    lines = run(block("sh", "echo_doctor\n").strip(), folder, **environment).splitlines()

    assert [line[:14] for line in lines if not line.startswith("ok ")] == ["skipped  echo:"]


def test_two_processes_behind_nginx_are_one_site(
    behind_nginx: tuple[int, dict[str, str]], tmp_path: Path
) -> None:
    port, environment = behind_nginx
    clients = [Client.opened(port, path="/chat/lobby/") for _ in range(4)]
    try:
        clients[0].send_text("hello")
        assert [client.text() for client in clients] == 4 * ["hello"]
        eventually(lambda: count(port), "4")
        assert "people are here" in urlopen(f"http://127.0.0.1:{port}/").read().decode()
        assert urlopen(f"http://127.0.0.1:{port}/static/echo/live.js").status == 200
    finally:
        for client in clients:
            client.socket.close()
    doctor = block("sh", "echo_doctor --url").strip().replace(":8080", f":{port}")
    assert "fails" not in run(doctor, tmp_path, **environment)
