"""The settings of django-liveops's tests, most of whose time is Django's slow password hasher."""

from tests.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
