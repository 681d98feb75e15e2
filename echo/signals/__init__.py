"""Signals: an object is occupied, an object is vacated, a count has changed.

One process in the cluster sends each signal once, from its sender thread, to one receiver after the
other; changes within a fifth of a second are sent as one. A process takes part if it has receivers
and has used the counts (a handshake, a read) or served an HTTP request of Django's. Connect
receivers before that, in a module that Django imports at startup.
"""

from django.dispatch import Signal

# Sent with `sender=NamedObject` and:
object_occupied = Signal()  # name, count: it has connections, and had none
object_vacated = Signal()  # name: it has had no connection for ECHO_VACATED_DELAY seconds
count_changed = Signal()  # name, count, previous

ALL = (object_occupied, object_vacated, count_changed)
