"""What every peer says, in the original's words."""

PREFIX = "[Durable Object]: "
COUNT_PATH = "/bench/getCurrentConnections"


def sentence(count: int) -> str:
    if count == 1:
        return "There is 1 WebSocket client connected to this Durable Object instance."
    return f"There are {count} WebSocket clients connected to this Durable Object instance."
