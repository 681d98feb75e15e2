import json
from argparse import ArgumentTypeError
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError, CommandParser

from echo.operations.doctor.finding import Finding
from echo.operations.doctor.installation import examine

RESULTS = {True: "ok", False: "fails", None: "skipped"}


def http_url(text: str) -> str:
    """Return the URL. Raises ArgumentTypeError."""
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # the port is not a number
        is_valid = False
    if not is_valid:
        raise ArgumentTypeError(f"{text!r} is not a URL like http://host:port/prefix.")
    return text


def as_line(finding: Finding) -> str:
    """Return the finding as one line: result, check, message and remedy."""
    end = "" if finding.message.endswith((".", "?", "!", "…")) else "."
    line = f"{RESULTS[finding.ok]:<8} {finding.check}: {finding.message}{end} {finding.remedy}"
    return " ".join(line.splitlines()).rstrip()


class Command(BaseCommand):
    help = "Check the installation by using it."
    requires_system_checks = []  # noqa: RUF012  (Django's name; `examine` runs the checks)

    def add_arguments(self, parser: CommandParser) -> None:
        url = "root of a running site, or of its echo.urls; by default a server is started"
        parser.add_argument("--url", type=http_url, help=url)
        user = "name of a user: also try a login, and that a logout closes its connection"
        parser.add_argument("--user", help=user)
        as_json = "print [{check, ok, message, remedy, log}]; ok is null for a skipped check"
        parser.add_argument("--json", action="store_true", help=as_json)

    def handle(self, *args: Any, **options: Any) -> None:
        findings = []
        for finding in examine(options["url"], options["user"]):
            findings.append(finding)
            if not options["json"]:
                self.stdout.write(as_line(finding))
                for line in finding.log.splitlines():
                    self.stdout.write(f"         {line}")
        if options["json"]:
            self.stdout.write(json.dumps([finding._asdict() for finding in findings]))
        failed = sum(finding.ok is False for finding in findings)
        total = sum(finding.ok is not None for finding in findings)
        if failed:
            raise CommandError(f"{failed} of {total} {'check' if total == 1 else 'checks'} failed.")
