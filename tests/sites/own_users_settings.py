"""Settings of the site in `logins.py`, with a user model of its own, and without the admin."""

from tests.sites.logins_settings import *  # noqa: F403

INSTALLED_APPS = [
    "echo",
    "daphne",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "tests.sites.own_users",
]
AUTH_USER_MODEL = "own_users.Person"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
