"""A pytest plugin, `-p uvicorn_cases`: uvicorn's tests of its WebSocket classes, and no others."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = [
        item
        for item in items
        if "ws_protocol_cls" in getattr(item, "fixturenames", ())
        or item.path.name == "test_websocket.py"
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
