"""Settings of a site without django.contrib.auth and without a database."""

SECRET_KEY = "of a test"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["echo", "daphne"]
ROOT_URLCONF = "tests.sites.tokens"
ASGI_APPLICATION = "tests.sites.tokens.application"
USE_TZ = True
ECHO_RECHECK_SECONDS = 0.1
