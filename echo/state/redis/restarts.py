"""Detects that a Redis server was restarted or promoted, and so may have lost writes."""

from collections.abc import Callable

from redis.exceptions import RedisError


class RestartDetector:
    """Compares the server at each address with the previous one. Thread-safe.

    Calls `on_new_server` with the age in seconds of each server that is seen for the first time or
    has been restarted: its data may be an old snapshot. For a promoted replica the age is 0: INFO
    does not contain the time of the promotion, and the replica may lack the primary's last writes.
    """

    def __init__(self, on_new_server: Callable[[float], None]) -> None:
        self._on_new_server = on_new_server
        self._seen: dict[str, tuple[str, str | None]] = {}  # address -> run id, replication id

    def check(self, address: str, info: str) -> None:
        """Compare the INFO sections "server" and "replication" with the last ones of the address.

        Raises RedisError if they lack the fields by which a restart is detected.
        """
        fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        try:
            run_id, uptime = fields["run_id"], float(fields["uptime_in_seconds"])
        except (KeyError, ValueError) as error:
            raise RedisError(
                "INFO lacks run_id or uptime_in_seconds, by which a restart is detected."
            ) from error
        # A replica has the replication id of its primary; after a promotion, its own.
        replication_id = fields.get("master_replid")
        seen = self._seen.get(address)
        if seen != (run_id, replication_id):
            # master_replid2 is the replication id before a promotion: zeros if the server was never
            # a replica, missing on servers without replication.
            was_replica = fields.get("master_replid2", "").strip("0") != ""
            # The uptime is in whole seconds, and may be one second too long.
            is_aged = seen is None and not was_replica
            self._on_new_server(max(uptime - 1, 0.0) if is_aged else 0.0)
            # Set after the call, so that threads that connect meanwhile make the call as well.
            self._seen[address] = run_id, replication_id
