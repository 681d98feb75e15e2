"""Django's page and mail of an error, without the passwords in URLs."""

import re

from django.views.debug import SafeExceptionReporterFilter


class Filter(SafeExceptionReporterFilter):
    hidden_settings = re.compile(
        f"{SafeExceptionReporterFilter.hidden_settings.pattern}|ECHO_STATE_URL|CHANNEL_LAYERS",
        flags=re.IGNORECASE,
    )
