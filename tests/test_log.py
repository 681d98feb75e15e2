"""Log messages: throttled, and without passwords."""

import pytest
from channels.exceptions import InvalidChannelLayerError
from pytest_django import Settings

from echo import log
from echo.log import describe, is_due, without_passwords


def test_messages_are_due_once_per_interval_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(log, "_last", {})
    monkeypatch.setattr(log, "monotonic", lambda: now)

    assert [is_due("a"), is_due("a"), is_due("b")] == [True, False, True]
    now += log.INTERVAL
    assert [is_due("a"), is_due("a")] == [True, False]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Error 111 connecting to redis://h:6379/0.", "Error 111 connecting to redis://h:6379/0."),
        ("OSError: redis://me:secret@h:1/0 is down", "OSError: redis://***@h:1/0 is down"),
        ("['redis://:a@h', 'redis://:b@i']", "['redis://***@h', 'redis://***@i']"),
        ("redis://:se/cret@h", "redis://***"),
        ("redis+sentinel://me:secret@h:1,i:2/s/0", "redis+sentinel://***@h:1,i:2/s/0"),
        ("redis+sentinel://:secret,i:2/s/0", "redis+sentinel://***"),
        ("redis://:secret and redis://[secret", "redis://*** and redis://***"),
        ("me:secret@h", "***@h"),
        ("unix:///s?password=secret&db=1", "unix:///s?password=***&db=1"),
        ("    @login_required\n  http://[::1]:80/", "    @login_required\n  http://[::1]:80/"),
    ],
)
def test_passwords_are_left_out(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("redis://me:secret@h is down"), "redis://***@h is down"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_error_is_described_without_passwords(error: Exception, words: str) -> None:
    assert describe(error) == words


def test_error_by_a_malformed_layer_is_not_quoted(settings: Settings) -> None:
    config = {"hosts": [{"address": "redis://:se/cret@h"}]}
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "a.Layer", "CONFIG": config}}

    assert describe(ValueError("no port: 'se'")).startswith("ValueError: a URL is malformed (")
    assert describe(InvalidChannelLayerError("no a.Layer")) == "no a.Layer"
