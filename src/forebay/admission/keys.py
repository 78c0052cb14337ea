"""Gateway keys: what one looks like, and the table a worker looks it up in.

A key is `fb_`, 43 digits for 256 random bits, and 6 digits of checksum, all in base 62:

    fb_ + 8zK4…(43)…Q1 + xY9aBc        matched by  fb_[0-9A-Za-z]{49}

The prefix and the fixed shape let secret scanners find keys that leaked into a repository;
the checksum (CRC-32, as GitHub does it) tells a key that was cut or mistyped from one that
was never issued, without asking anything. It is no security: the 256 bits are.

Kept is only a keyed digest: BLAKE2b with a secret pepper (`key_store.py`), 0.6 µs where
HMAC-SHA-256 takes 1.6. A slow password hash would add nothing, since nobody guesses 256
random bits; the pepper keeps a stolen database from even confirming a guess. The digest is
looked up in a dict, whose timing depends on a digest that the sender can't compute, and
compared once more in constant time.

A worker's `Keyring` is replaced whole when the back office sends a new snapshot. Between
snapshots it works from what it last knew; expiry needs no snapshot.
"""

import hashlib
import hmac
import re
import zlib
from collections.abc import Iterable
from typing import Literal

import msgspec

from forebay.errors import Failure
from forebay.exchange import Tenant

Role = Literal["admin", "caller"]

PREFIX = "fb_"
#: For documentation and secret scanners.
PATTERN = r"fb_[0-9A-Za-z]{49}"

ENTROPY_BYTES = 32
PEPPER_BYTES = 32

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY_DIGITS = 43  # 62^43 > 2^256
_CHECK_DIGITS = 6  # 62^6 > 2^32
KEY_LENGTH = len(PREFIX) + _BODY_DIGITS + _CHECK_DIGITS
_SHAPE = re.compile(PATTERN.encode())
_PERSON = b"forebay key"


class KeyRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A key as it is stored and sent to workers. Times are wall clock nanoseconds, 0: never."""

    id: str
    team: str
    project: str
    name: str
    role: Role
    digest: bytes
    last4: str
    created_ns: int
    expires_ns: int = 0
    revoked_ns: int = 0

    def state(self, wall_ns: int) -> str:
        """`active`, `expired` or `revoked`; revoked wins, since a person decided it."""
        if self.revoked_ns:
            return "revoked"
        if self.expires_ns and wall_ns >= self.expires_ns:
            return "expired"
        return "active"


def compose(entropy: bytes) -> str:
    """The key made of 32 random bytes."""
    body = _base62(int.from_bytes(entropy, "big"), _BODY_DIGITS)
    return PREFIX + body + _checksum(body.encode())


def is_well_formed(secret: bytes) -> bool:
    """Whether this could have been issued: the shape and the checksum are right."""
    if _SHAPE.fullmatch(secret) is None:
        return False
    body = secret[len(PREFIX) : -_CHECK_DIGITS]
    return secret[-_CHECK_DIGITS:] == _checksum(body).encode()


def digest(secret: bytes, pepper: bytes) -> bytes:
    """What is kept of a key, 32 bytes. Sync, ~0.7 µs."""
    return hashlib.blake2b(secret, digest_size=32, key=pepper, person=_PERSON).digest()


class Keyring:
    """Every key of the installation, in memory. Sync, no I/O; one for each worker."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper
        self._held: dict[bytes, tuple[KeyRow, Tenant]] = {}

    def load(self, rows: Iterable[KeyRow]) -> None:
        """Replace everything held by a snapshot, in one step."""
        self._held = {
            row.digest: (row, Tenant(team=row.team, project=row.project, key_id=row.id))
            for row in rows
        }

    def identify(self, secret: bytes, wall_ns: int) -> Tenant:
        """Whose key this is. Sync, ~1.5 µs for a key that is held.

        Raises Failure: missing_key (empty), bad_key (mistyped, unknown or revoked),
        key_expired. None of them repeats what was sent.
        """
        found = self._find(secret)
        if found is None:
            raise _refusal(secret)
        row, tenant = found
        if row.revoked_ns:
            raise Failure("bad_key", f"The key {row.id} was revoked.", hint=_ASK)
        if row.expires_ns and wall_ns >= row.expires_ns:
            raise Failure("key_expired", f"The key {row.id} has expired.", hint=_ASK)
        return tenant

    def is_admin(self, secret: bytes, wall_ns: int) -> bool:
        """Whether this is a key that may operate the gateway, now. Never raises."""
        found = self._find(secret)
        if found is None:
            return False
        row, _ = found
        return row.role == "admin" and row.state(wall_ns) == "active"

    def _find(self, secret: bytes) -> tuple[KeyRow, Tenant] | None:
        if len(secret) != KEY_LENGTH:  # nothing long is ever hashed
            return None
        mine = digest(secret, self._pepper)
        found = self._held.get(mine)
        if found is None or not hmac.compare_digest(found[0].digest, mine):
            return None
        return found

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        revoked = sum(1 for row, _ in self._held.values() if row.revoked_ns)
        return f"<Keyring {len(self._held)} keys, {revoked} revoked>"


_ASK = "Ask whoever runs this gateway for a new one (forebay keys create)."


def _refusal(secret: bytes) -> Failure:
    if not secret:
        return Failure(
            "missing_key",
            "This gateway asks for a key and none was sent.",
            hint="Send it as Authorization: Bearer fb_… or x-api-key: fb_….",
        )
    if not secret.startswith(PREFIX.encode()):
        return Failure(
            "bad_key",
            "What was sent is no key of this gateway: those begin with fb_.",
            hint="A provider's key does not belong here; send the gateway's.",
        )
    if not is_well_formed(secret):
        return Failure(
            "bad_key",
            f"The key was cut or mistyped: its {len(secret)} characters fail their checksum.",
            hint=f"Copy it again, all {KEY_LENGTH} characters.",
        )
    return Failure("bad_key", "The key is well formed, but was not issued here.", hint=_ASK)


def _checksum(body: bytes) -> str:
    return _base62(zlib.crc32(body), _CHECK_DIGITS)


def _base62(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, 62)
        text = _ALPHABET[digit] + text
    return text
