"""Signals: an object is occupied or vacated, a count has changed, a member has joined or left.

Each signal is sent once per cluster, by the sender thread of one process, which calls the receivers
one after the other. Changes within a fifth of a second are combined. A process may become that
sender if it has receivers, and has either used the counts (a handshake, a read) or served an HTTP
request with Django. Connect receivers before that, in a module that Django imports at startup.
"""

from django.dispatch import Signal

# The sender is NamedObject. The comments list the other arguments.
object_occupied = Signal()  # name, count; after its first connection
object_vacated = Signal()  # name; after ECHO_VACATED_DELAY seconds without a connection
count_changed = Signal()  # name, count, previous
member_joined = Signal()  # name, member (a Member); after its first connection
member_left = Signal()  # name, member; after ECHO_VACATED_DELAY seconds without a connection

OF_MEMBERS = (member_joined, member_left)
ALL = (object_occupied, object_vacated, count_changed, *OF_MEMBERS)
