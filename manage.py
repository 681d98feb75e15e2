#!/usr/bin/env python
"""Django's command line for the demo, in development: DEBUG is on unless DJANGO_DEBUG says not."""

import os
import sys

from django.core.management import execute_from_command_line


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    os.environ.setdefault("DJANGO_DEBUG", "1")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
