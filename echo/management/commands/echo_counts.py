import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils.translation import gettext as _

from echo.management.base import known, named_object, require_shared_state, until_nobody_reads
from echo.objects import connected_objects


class Command(BaseCommand):
    help = "Show how many connections each object has now, or the named ones."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", metavar="name", help="objects; by default all")
        parser.add_argument("--prefix", default="", help="only objects whose name begins so")
        parser.add_argument("--json", action="store_true", help='print {"name": count}')

    def handle(self, *args: Any, **options: Any) -> None:
        require_shared_state()
        if options["names"]:
            objects = [named_object(name) for name in options["names"]]
            counts = known(lambda: {one.name: one.count() for one in objects})
        else:
            counts = known(lambda: connected_objects(options["prefix"]))
        with until_nobody_reads():
            self._show(counts, options["json"])

    def _show(self, counts: dict[str, int], as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(counts))
            return
        for name, count in counts.items():
            self.stdout.write(f"{count:>8}  {name}")
        if not counts:
            self.stderr.write(_("No object has a connection now."))
