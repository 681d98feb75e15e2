"""Validation of object names, and the channel-layer group of a name."""

import unicodedata
from hashlib import sha256

from django.utils.translation import gettext as _

from echo.exceptions import InvalidName

MAX_NAME_BYTES = 128


def check_name(name: str) -> str:
    """Return the name if it is valid: 1 to 128 bytes of UTF-8, no control characters, no slash.

    Raises InvalidName with the rule that the name breaks.
    """
    if not isinstance(name, str):
        raise InvalidName(_("The name %r is not a string.") % (name,))
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName(_("The name %r is not UTF-8.") % name) from None
    if not 1 <= size <= MAX_NAME_BYTES:
        rule = _("A name has 1 to %(most)d bytes of UTF-8; this one has %(size)d.")
        raise InvalidName(rule % {"most": MAX_NAME_BYTES, "size": size})
    if has_control_character(name):
        raise InvalidName(_("The name %r has a control character.") % name)
    if "/" in name:
        raise InvalidName(_("The name %r has a slash.") % name)
    return name


def has_control_character(text: str) -> bool:
    # Fast path: most names are ASCII, and these methods are implemented in C.
    if text.isascii() and text.isprintable():
        return False
    return any(unicodedata.category(char) == "Cc" for char in text)


def group_name(name: str) -> str:
    """Return the channel-layer group of the object.

    It is valid for every layer: Channels allows fewer than 100 ASCII letters, digits, `-`, `_` and
    `.`.
    """
    return f"echo.{sha256(name.encode()).hexdigest()}"


def visible(text: str) -> str:
    """Return the text with non-printable characters escaped as in Python: `\\u202e`.

    Zero-width and bidirectional characters can make one name look like another (Unicode TR36,
    §2.10).
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )
