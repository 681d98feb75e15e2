import json
from argparse import ArgumentTypeError
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext_lazy

from echo.operations.doctor.finding import Finding
from echo.operations.doctor.installation import examine

WORDS = {
    True: pgettext_lazy("echo", "ok"),
    False: pgettext_lazy("echo", "fails"),
    None: pgettext_lazy("echo", "skipped"),
}
ENDS = (".", "?", "!", "…")


def http_url(text: str) -> str:
    """Return the URL. Raises ArgumentTypeError."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # the port is no number
        valid = False
    if not valid:
        raise ArgumentTypeError(_("%r is not http://host:port/prefix.") % text)
    return text


def line(finding: Finding) -> str:
    """Return the finding in one line: what it found in a sentence, and what to do."""
    message = finding.message if finding.message.endswith(ENDS) else f"{finding.message}."
    told = f"{WORDS[finding.ok]!s:<8} {finding.check}: {message} {finding.remedy}"
    return " ".join(told.splitlines()).rstrip()


class Command(BaseCommand):
    help = "Find out whether this installation works, by using it."
    requires_system_checks = []  # noqa: RUF012  (Django's name; they are among the findings)

    def add_arguments(self, parser: CommandParser) -> None:
        what = (
            "root of a running site, or prefix of its echo routes; by default a server is started"
        )
        parser.add_argument("--url", type=http_url, help=what)
        what = "print [{check, ok, message, remedy, log}]; ok is null if nothing could be tried"
        parser.add_argument("--json", action="store_true", help=what)

    def handle(self, *args: Any, **options: Any) -> None:
        findings = []
        for finding in examine(options["url"]):
            findings.append(finding)
            if not options["json"]:
                self.stdout.write(line(finding))
                for logged in finding.log.splitlines():
                    self.stdout.write(f"         {logged}")
        if options["json"]:
            self.stdout.write(json.dumps([finding._asdict() for finding in findings]))
        failed = sum(finding.ok is False for finding in findings)
        if failed:
            total = sum(finding.ok is not None for finding in findings)
            sentence = ngettext(
                "%(failed)d of %(total)d check failed.",
                "%(failed)d of %(total)d checks failed.",
                total,
            )
            raise CommandError(sentence % {"failed": failed, "total": total})
