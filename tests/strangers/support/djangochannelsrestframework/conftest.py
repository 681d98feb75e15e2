"""What the tests of djangochannelsrestframework need, and its source distribution leaves out."""

from django.conf import settings


def pytest_configure():
    settings.configure(
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "channels",
            "tests",
        ],
        SECRET_KEY="of tests",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}},
        CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    )
