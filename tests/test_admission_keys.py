"""Keys as text and as digests, and the table that a worker looks them up in."""

import re
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.admission import keys
from forebay.admission.keys import Keyring, KeyRow
from forebay.errors import Failure
from forebay.exchange import Tenant

PEPPER = b"p" * 32
ENTROPY = st.binary(min_size=32, max_size=32)
NOW = 1_767_225_600_000_000_000


def row(secret: str, **changes: object) -> KeyRow:
    given = KeyRow(
        id="key_1",
        team="web",
        project="shop",
        name="",
        role="caller",
        digest=keys.digest(secret.encode(), PEPPER),
        last4=secret[-4:],
        created_ns=NOW,
    )
    return msgspec.structs.replace(given, **changes)


def ring(*rows: KeyRow) -> Keyring:
    held = Keyring(PEPPER)
    held.load(rows)
    return held


def refused(held: Keyring, secret: bytes, wall_ns: int = NOW) -> Failure:
    with pytest.raises(Failure) as caught:
        held.identify(secret, wall_ns)
    return caught.value


SECRET = keys.compose(bytes(range(32)))


# -- the text


def test_a_key_looks_the_same_for_ever() -> None:
    """Keys in use carry this checksum: a change here would call them mistyped."""
    assert keys.compose(bytes(32)) == "fb_" + "0" * 43 + "2CZclj"
    assert SECRET == "fb_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf1Yo7hP"


@given(ENTROPY)
def test_every_key_has_the_published_shape(entropy: bytes) -> None:
    secret = keys.compose(entropy)
    assert re.fullmatch(keys.PATTERN, secret)
    assert len(secret) == keys.KEY_LENGTH
    assert keys.is_well_formed(secret.encode())


@given(st.lists(ENTROPY, unique=True, min_size=2, max_size=20))
def test_different_randomness_makes_different_keys(draws: list[bytes]) -> None:
    assert len({keys.compose(draw) for draw in draws}) == len(draws)


@given(ENTROPY, st.integers(3, 51), st.sampled_from("0aZ9"))
def test_one_wrong_character_is_a_typo(entropy: bytes, at: int, wrong: str) -> None:
    secret = keys.compose(entropy)
    typo = secret[:at] + wrong + secret[at + 1 :]
    assert keys.is_well_formed(typo.encode()) == (typo == secret)


@given(ENTROPY, st.integers(0, 51))
def test_a_cut_key_is_a_typo(entropy: bytes, length: int) -> None:
    assert not keys.is_well_formed(keys.compose(entropy)[:length].encode())


def test_the_largest_draw_fits() -> None:
    assert re.fullmatch(keys.PATTERN, keys.compose(b"\xff" * 32))
    assert all(a < b for a, b in pairwise(keys.compose(bytes([n]) * 32) for n in range(256)))


# -- the digest


@given(ENTROPY, ENTROPY)
def test_the_digest_depends_on_the_key_and_on_the_pepper(one: bytes, other: bytes) -> None:
    assert (keys.digest(b"x", one) == keys.digest(b"x", other)) == (one == other)
    assert (keys.digest(one, PEPPER) == keys.digest(other, PEPPER)) == (one == other)


# -- the ring


@given(st.lists(ENTROPY, unique=True, min_size=1, max_size=12))
def test_each_key_identifies_its_own_project_and_no_other(draws: list[bytes]) -> None:
    secrets = [keys.compose(draw) for draw in draws]
    held = ring(
        *(
            row(secret, id=f"key_{n}", team=f"t{n % 2}", project=f"p{n}")
            for n, secret in enumerate(secrets)
        )
    )
    for n, secret in enumerate(secrets):
        assert held.identify(secret.encode(), NOW) == Tenant(f"t{n % 2}", f"p{n}", f"key_{n}")


@given(ENTROPY, ENTROPY)
def test_a_key_that_was_not_issued_is_refused(issued: bytes, other: bytes) -> None:
    held = ring(row(keys.compose(issued)))
    if issued != other:
        failure = refused(held, keys.compose(other).encode())
        assert failure.code.name == "bad_key"
        assert "not issued here" in failure.message


@given(st.binary(max_size=80))
def test_no_other_bytes_get_in_and_none_are_repeated(sent: bytes) -> None:
    failure = refused(ring(row(SECRET)), sent)
    assert failure.code.name == ("bad_key" if sent else "missing_key")
    assert failure.code.status == 401
    assert not failure.code.retryable
    if len(sent) > 3:
        assert sent.decode("latin-1") not in str(failure)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "none was sent"),
        (b"sk-proj-abc", "begin with fb_"),
        (SECRET[:-1].encode(), "its 51 characters fail their checksum"),
        (SECRET.encode() + b" ", "its 53 characters fail"),
        (SECRET.swapcase().encode(), "begin with fb_"),
        (b"fb_" + b"z" * 49, "fail their checksum"),
        (b"fb_" + b"z" * 10_000_000, "its 10000003 characters fail"),
    ],
)
def test_a_refusal_says_what_is_wrong_with_a_key(sent: bytes, says: str) -> None:
    assert says in refused(ring(row(SECRET)), sent).message


def test_a_revoked_key_is_refused_and_says_so() -> None:
    failure = refused(ring(row(SECRET, revoked_ns=NOW - 1)), SECRET.encode())
    assert failure.code.name == "bad_key"
    assert failure.message == "The key key_1 was revoked."


def test_a_key_works_until_the_very_moment_it_expires() -> None:
    held = ring(row(SECRET, expires_ns=NOW))
    assert held.identify(SECRET.encode(), NOW - 1).key_id == "key_1"
    assert refused(held, SECRET.encode(), NOW).code.name == "key_expired"


def test_without_an_expiry_a_key_never_expires() -> None:
    assert ring(row(SECRET)).identify(SECRET.encode(), 2**63 - 1).project == "shop"


def test_a_snapshot_replaces_all_that_was_held() -> None:
    held = ring(row(SECRET))
    other = keys.compose(b"o" * 32)
    held.load([row(other)])
    assert refused(held, SECRET.encode()).code.name == "bad_key"
    assert held.identify(other.encode(), NOW).project == "shop"
    held.load([])
    assert refused(held, other.encode()).code.name == "bad_key"


def test_a_ring_with_another_pepper_knows_nobody() -> None:
    held = Keyring(b"q" * 32)
    held.load([row(SECRET)])
    assert refused(held, SECRET.encode()).code.name == "bad_key"


@pytest.mark.parametrize(
    ("changes", "wall_ns", "admin"),
    [
        ({"role": "admin"}, NOW, True),
        ({"role": "caller"}, NOW, False),
        ({"role": "admin", "revoked_ns": 1}, NOW, False),
        ({"role": "admin", "expires_ns": NOW}, NOW, False),
        ({"role": "admin", "expires_ns": NOW}, NOW - 1, True),
    ],
)
def test_who_is_admin(changes: dict[str, object], wall_ns: int, admin: bool) -> None:
    held = ring(row(SECRET, **changes))
    assert held.is_admin(SECRET.encode(), wall_ns) is admin
    assert not held.is_admin(b"", wall_ns)
    assert not held.is_admin(SECRET[:-1].encode(), wall_ns)


def test_rows_travel_as_msgpack() -> None:
    rows = [row(SECRET), row(SECRET, revoked_ns=5)]
    sent = msgspec.msgpack.encode(rows)
    assert msgspec.msgpack.decode(sent, type=list[KeyRow]) == rows


def test_a_ring_can_be_printed_without_its_keys() -> None:
    held = ring(row(SECRET), row(keys.compose(b"o" * 32), revoked_ns=1))
    assert repr(held) == "<Keyring 2 keys, 1 revoked>"
    assert len(held) == 2
