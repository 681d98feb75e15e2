"""Settings of the demo: they run as they are; the environment may set what a real site needs."""

import os
import re
from pathlib import Path

from django.core.management.utils import get_random_secret_key

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("DJANGO_DEBUG") == "1"
# Without it each process makes a key of its own as it starts: people have to log in again then.
# Many processes need the same one, or those who log in at one are strangers to the others.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or get_random_secret_key()
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")

INSTALLED_APPS = [
    "echo",
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Seconds over which a server that stops closes its connections one after the other.
ECHO_DRAIN_SECONDS = float(os.environ.get("ECHO_DRAIN_SECONDS", "0"))

# Counts, and messages to the connections of other processes, through Redis where there is one.
ECHO_STATE_URL = os.environ.get("ECHO_STATE_URL", "memory://")
# The layer takes no URL of a cluster or of Sentinel, and calls a Valkey a Redis.
is_single = not ECHO_STATE_URL.startswith(("memory:", "redis+sentinel:"))
if is_single and "cluster=true" not in ECHO_STATE_URL:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [re.sub("^valkey", "redis", ECHO_STATE_URL)]},
        }
    }

# Anybody may ask for the page of an error in DEBUG, by a bad Host.
DEFAULT_EXCEPTION_REPORTER_FILTER = "project.reporting.Filter"

# Where `collectstatic` puts what the proxy serves. `runserver` needs it not, and is alone in that.
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"

USE_TZ = True
TIME_ZONE = "UTC"

# Added to Django's own. While Redis is away, its channel layer logs a traceback each second, as an
# error; echo says once that it is away, and once that it is back.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"channels_redis.pubsub": {"level": "CRITICAL"}},
}
