"""The demo, with receivers that write what they are told to the file SIGNALS_FILE."""

import os

from django.dispatch import receiver

from echo.signals import count_changed, object_occupied, object_vacated
from project.asgi import application

__all__ = ["application"]


def write(*words):
    descriptor = os.open(os.environ["SIGNALS_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    os.close(descriptor)


@receiver(object_occupied)
def occupied(name, count, **kwargs):
    write("occupied", name, count)


@receiver(object_vacated)
async def vacated(name, **kwargs):
    write("vacated", name)


@receiver(count_changed)
def changed(name, count, previous, **kwargs):
    write("changed", name, previous, count)
