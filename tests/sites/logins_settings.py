"""Settings of the site in `logins.py`, with what the environment says."""

import os

from project.settings import *  # noqa: F403

_folder = os.environ["LOGINS_FOLDER"]
SECRET_KEY = "the same in all processes"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{_folder}/db.sqlite3"}}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": f"{_folder}/cache",
    }
}
SESSION_ENGINE = f"django.contrib.sessions.backends.{os.environ['LOGINS_ENGINE']}"
SESSION_FILE_PATH = _folder
SESSION_COOKIE_AGE = int(os.environ.get("LOGINS_COOKIE_AGE", "1000"))
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "tests.sites.logins"
ASGI_APPLICATION = "tests.sites.logins.application"

ECHO_AUTHORIZE = "tests.sites.logins.authorize"
ECHO_RECHECK_SECONDS = float(os.environ.get("LOGINS_RECHECK_SECONDS", "1"))
