"""Settings of a German site: its visitors' language where it has it, else German."""

from tests.sites.admin import *  # noqa: F403
from tests.sites.admin import MIDDLEWARE as ADMIN_MIDDLEWARE

LANGUAGE_CODE = "de"
LANGUAGES = [("de", "Deutsch"), ("en", "English")]
MIDDLEWARE = [
    *ADMIN_MIDDLEWARE[:3],
    "django.middleware.locale.LocaleMiddleware",  # below that of sessions
    *ADMIN_MIDDLEWARE[3:],
]
