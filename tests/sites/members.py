"""Settings of the demo with users, and a page of the members of an object: `GET /who`."""

from tests.sites.admin import *  # noqa: F403

ASGI_APPLICATION = "project.asgi.application"
ROOT_URLCONF = "tests.sites.members_urls"
ECHO_MAX_MEMBERS_SHOWN = 3
