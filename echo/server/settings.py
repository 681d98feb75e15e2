"""The Django settings that both servers read. Each has a default if Django is not used."""

from django.conf import settings


def drain_seconds() -> float:
    """Return ECHO_DRAIN_SECONDS. Raises ImproperlyConfigured."""
    if not settings.configured:
        return 0
    from echo.conf import conf

    return conf.ECHO_DRAIN_SECONDS
