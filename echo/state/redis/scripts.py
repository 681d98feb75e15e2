"""The steps of the state: Lua scripts, which Redis runs atomically and by its own clock.

Shared Lua is in lua.py; the scripts are in read_scripts.py, member_scripts.py and write_scripts.py,
or beside their only caller: reservations.py, selfcheck.py and ledger.py.

All keys have the hash tag `{echo}`, so that a Redis Cluster keeps them on one node, and the version
of this layout, so that processes of releases with different layouts share no keys.

| key                     | type       | contents                                                 |
|-------------------------|------------|----------------------------------------------------------|
| `{echo}:2:meta`         | hash       | the fields below; times in µs                            |
| `{echo}:2:totals`       | hash       | name -> number of connections; "/epoch"                  |
| `{echo}:2:members:<name>` | hash     | member key -> its presence: "connections since changed   |
|                         |            | info", see members.py; "" -> epoch                       |
| `{echo}:2:share:<id>`   | hash       | name -> number of connections in that process;           |
|                         |            | "name/key" -> the same for a member;                     |
|                         |            | "/epoch"; "/sequence" -> number of its last write;       |
|                         |            | "/names" -> number of names; "/buckets" -> of buckets;   |
|                         |            | "/granted" -> result of the last reservations;           |
|                         |            | "/swept" -> number of buckets of a dead process that     |
|                         |            | have been subtracted                                     |
| `{echo}:2:share:<id>/<n>` | hash     | bucket n: further names and numbers; "/epoch"            |
| `{echo}:2:processes`    | sorted set | the registry: process id -> end of its lease; 0 if the   |
|                         |            | process is dead and its share is being subtracted        |
| `{echo}:2:awaited`      | set        | ids that have not written their whole share since the    |
|                         |            | epoch began                                              |
| `{echo}:2:leader`       | string     | id of the leader, the process that sends the signals     |
| `{echo}:2:ledger`       | hash       | name -> count that signals were last sent for, 0 until   |
|                         |            | the object is vacated; "name/key" -> presence of a       |
|                         |            | member, if the signals of members have receivers, until  |
|                         |            | `member_left` is sent; "/epoch"                          |
| `{echo}:2:changes`      | channel    | the feed: number of the change, then names and totals;   |
|                         |            | the number alone if a new epoch begins                   |

Names of objects contain no "/" and no line break, member keys no line break.

Redis stores a small hash in a third of the memory of a large one. So a share of more than
MAX_IN_ONE names is divided into buckets, small hashes. The hash of a name selects its bucket, and
each write adds buckets while they have more than BUCKET_SIZE names on average (linear hashing): a
new one takes over half of the names of another one. If few names remain, they are in one bucket
again. If a bucket is missing, it was evicted, and the share counts as lost.

The invariant, true after each step: *the totals are the sum of the shares of all registered
processes whose "/epoch" is the current epoch*. Each step changes a share and the totals together,
by the difference of the old and the new number. So the numbers that processes write are absolute,
and a write may be repeated, merged, late or lost. The numbers of connections in the hashes of
members are totals, too; a hash of an earlier epoch counts as empty.

The count of an object is its total, less the numbers in the shares of dead processes, whose lease
has ended. Writes subtract the share of a dead process from the totals in slices.

An epoch is the time since which no loss of data, restart or outage of Redis is known. When a new
epoch begins, the totals are deleted, each process writes its whole share again, and all processes
in the registry are awaited: until each has written, or its lease has ended, the sum is unknown.
Processes also remember the live ids that they last saw, so that a registry that was lost, or is an
old snapshot, is completed by their next writes. The sum stays unknown for one warm-up (heartbeat +
CATCH_UP_GRACE) in any case, within which live processes that nobody remembers write. A write begins
a new epoch in these cases:

1. `meta` or the totals are missing, the registry of totals, or the share of the writer: they were
   flushed or evicted.
2. The server has another run id than the one that began the epoch: it was restarted and may have
   loaded an old snapshot, or is a promoted replica and may lack the last writes.
3. No process has written for the time in which one should have (`silence`, the shortest warm-up of
   all processes), and the registry contains another process: Redis hung or was unreachable, or its
   clock jumped ahead. The leases that ended meanwhile prove nothing.
4. The last write is in the future: the clock jumped back.
5. The share of the writer is older than its last acknowledged write.

If the writer finds no live process, all others have exited or are dead, except for those that
started while Redis was down. These retry every RETRY_INTERVAL, so the sum is known after the settle
time (RETRY_INTERVAL + CATCH_UP_GRACE + 0.1 s).
"""

from hashlib import sha1

PREFIX = "{echo}:2:"
META = PREFIX + "meta"
TOTALS = PREFIX + "totals"
PROCESSES = PREFIX + "processes"
AWAITED = PREFIX + "awaited"
LEADER = PREFIX + "leader"
LEDGER = PREFIX + "ledger"
SHARE = PREFIX + "share:"
MEMBERS_OF = PREFIX + "members:"
CHANGES = PREFIX + "changes"

READ_KEYS = "meta totals processes awaited leader_key"  # of each script that reads

# Results of reads and reservations if the sum is unknown.
LOST, WARMING_UP, AWAITING, NO_LEASE, STALE = -1, -2, -3, -4, -5
NO_LEADER, OTHER_LEADER, IS_LEADER = 0, 1, 2
# Result of a write that Redis cannot apply: the process writes its whole share.
WHOLE_NEEDED = 0

MAX_OBJECTS = 16  # of one connection; `counted` allows fewer
# Names in a share of one bucket: fewer than the default of `hash-max-listpack-entries`.
MAX_IN_ONE = 400
BUCKET_SIZE = 64  # names, on average, in a share of more
SLICE = 500  # names of a dead process that one step subtracts
MAX_AGE = 24 * 3600  # seconds after which Redis deletes the keys if all processes have been killed


class Script:
    """A Lua script with named keys and arguments; an argument that ends with `#` is a number.

    The script accesses all further arguments as `ARGV[i]`, from `i = first`.
    """

    def __init__(self, keys: str, args: str, body: str) -> None:
        self.keys, self.args = keys.split(), [name.rstrip("#") for name in args.split()]
        lines = [f"local {name} = KEYS[{i}]" for i, name in enumerate(self.keys, 1)]
        for i, name in enumerate(args.split(), 1):
            value = f"tonumber(ARGV[{i}])" if name.endswith("#") else f"ARGV[{i}]"
            lines.append(f"local {name.rstrip('#')} = {value}")
        lines.append(f"local first = {len(self.args) + 1}")
        lines.append(f"local share_prefix, members_prefix = '{SHARE}', '{MEMBERS_OF}'")
        lines.append(f"local channel, max_age = '{CHANGES}', {MAX_AGE}")
        lines.append(f"local max_in_one, bucket_size = {MAX_IN_ONE}, {BUCKET_SIZE}")
        self.text = "\n".join([*lines, body])
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
