"""Settings of the demo under a policy of nonces.

The nonce is Django's own from 6.0 on, else one in the way of django-csp.
"""

import os
import secrets

import django

from project.settings import *  # noqa: F403
from project.settings import MIDDLEWARE as DEMO_MIDDLEWARE
from project.settings import TEMPLATES

ROOT_URLCONF = "tests.sites.nonce_urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("ECHO_TEST_DATABASE", ":memory:"),
    }
}
OTHERS = {
    "default-src": ["'none'"],
    "connect-src": ["'self'"],
    "img-src": ["'self'", "data:"],
    "form-action": ["'self'"],
}


def nonce_policy(get_response):
    def respond(request):
        request.csp_nonce = secrets.token_urlsafe(16)
        response = get_response(request)
        nonce = f"'nonce-{request.csp_nonce}'"
        policy = {**OTHERS, "script-src": [nonce], "style-src": [nonce]}
        header = "; ".join(f"{name} {' '.join(values)}" for name, values in policy.items())
        response["Content-Security-Policy"] = header
        return response

    return respond


if django.VERSION >= (6, 0):
    from django.utils.csp import CSP

    MIDDLEWARE = ["django.middleware.csp.ContentSecurityPolicyMiddleware", *DEMO_MIDDLEWARE]
    TEMPLATES[0]["OPTIONS"]["context_processors"].append("django.template.context_processors.csp")
    SECURE_CSP = {**OTHERS, "script-src": [CSP.NONCE], "style-src": [CSP.NONCE]}
else:
    MIDDLEWARE = [f"{__name__}.nonce_policy", *DEMO_MIDDLEWARE]
