"""Secrets by reference: ``env:NAME`` or ``file:PATH``; the value is read when it is needed and never kept in a topic.

Whoever can write the topic of subscriptions must not be able to read this machine's environment or files, so a worker
resolves only references that its own settings allow.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from streams.core.errors import CurfewError

#: What a worker allows unless its settings say otherwise: variables of this prefix, and no files.
DEFAULT_ALLOWED: Final = ("env:CURFEW_SECRET_*",)
PREFIX: Final = "whsec_"
#: Standard Webhooks asks for 24 to 64 bytes; a shorter key can be guessed from one delivery.
MIN_BYTES, MAX_BYTES = 24, 64


class SecretError(CurfewError):
    """A secret cannot be used; the message names the reference and the remedy, never the value."""


class Secrets:
    """Resolves references against the allowed patterns (``env:PARTNER_*``, ``file:/run/secrets/*``)."""

    def __init__(self, allowed: Sequence[str] = DEFAULT_ALLOWED) -> None:
        self._allowed = tuple(allowed)

    def resolve(self, reference: str) -> bytes:
        """The key bytes of a ``whsec_…`` secret; raises :class:`SecretError`."""
        kind, _, name = reference.partition(":")
        if kind == "file":
            # Without this, file:/run/secrets/../../etc/passwd would match file:/run/secrets/*.
            name = os.path.realpath(name)
        if not any(fnmatchcase(f"{kind}:{name}", pattern) for pattern in self._allowed):
            raise SecretError(
                f"{reference} is not allowed here; add it to the setting webhook_secrets (CURFEW_WEBHOOK_SECRETS, "
                f"a JSON list) of the process that reads it "
                f"(now {', '.join(self._allowed) or 'empty'})"
            )
        return key_bytes(self._read(kind, name, reference), reference)

    def _read(self, kind: str, name: str, reference: str) -> str:
        if kind == "env":
            value = os.environ.get(name)
            if value is None:
                raise SecretError(f"{reference}: the environment variable is not set in this process; set it")
            return value
        if kind == "file":
            try:
                return Path(name).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise SecretError(f"{reference}: cannot be read ({type(error).__name__})") from None
        raise SecretError(f"{reference.partition(':')[0]}: is no kind of reference; use env:NAME or file:PATH")


def key_bytes(secret: str, reference: str) -> bytes:
    """The bytes of a ``whsec_`` + base64 secret; ``reference`` is what errors call it."""
    text = secret.strip()
    if not text.startswith(PREFIX):
        raise SecretError(f"{reference}: the secret does not begin with {PREFIX!r}; make one with base64 inside")
    try:
        key = base64.b64decode(text[len(PREFIX) :] + "==", validate=False)
    except (binascii.Error, ValueError):
        raise SecretError(f"{reference}: what follows {PREFIX!r} is not base64") from None
    if not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise SecretError(f"{reference}: {len(key)} bytes; use {MIN_BYTES} to {MAX_BYTES}")
    return key
