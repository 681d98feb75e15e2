"""Settings of the demo with a function that asks the database who may connect."""

from typing import Any

from project.settings import *  # noqa: F403

ECHO_AUTHORIZE = "tests.sites.asking_database.ask_database"


def ask_database(asking: Any, name: str | None, action: str) -> bool:
    """Allow all; the object "cut" cuts the connection to the database afterwards."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    if name == "cut":
        connection.connection.close()
    return True
