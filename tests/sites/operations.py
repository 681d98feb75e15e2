"""Settings of the demo with the operators' URLs, which a token opens."""

from project.settings import *  # noqa: F403

ROOT_URLCONF = "tests.sites.operations_urls"
ECHO_AUTHORIZE = "tests.sites.operations_urls.authorize"
