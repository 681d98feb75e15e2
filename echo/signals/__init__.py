"""Signals of the counts: an object is occupied, is vacated, or its count has changed.

Receivers may be plain functions or `async def`. Each change is told once in the whole cluster, in
one of the processes that have a receiver and have served a WebSocket or a request of Django's: on a
thread of its own, one after the other. Changes within a fifth of a second are told as one.
"""

from django.dispatch import Signal

# Sent with `sender=NamedObject` and:
object_occupied = Signal()  # name, count: it has connections, and had none
object_vacated = Signal()  # name: it has had no connection for ECHO_VACATED_DELAY seconds
count_changed = Signal()  # name, count, previous

ALL = (object_occupied, object_vacated, count_changed)
