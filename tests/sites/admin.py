"""Settings of the demo with a database of its own, under a strict policy for scripts and styles."""

import os

from project.settings import *  # noqa: F403
from project.settings import MIDDLEWARE as DEMO_MIDDLEWARE

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["ECHO_TEST_DATABASE"]}
}
if os.environ.get("ECHO_STATE_URL"):  # several processes, which must recognise each other's forms
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": os.environ["ECHO_STATE_URL"],
        }
    }
SECRET_KEY = "the same in all processes, so that one log-in is for all"
ASGI_APPLICATION = "tests.sites.admin_routes.application"
MIDDLEWARE = ["tests.sites.admin.strict_policy", *DEMO_MIDDLEWARE]


def strict_policy(get_response):
    def answer(request):
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'; img-src 'self' data:"
        return response

    return answer
