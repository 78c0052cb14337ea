"""Keys in the database: made, revoked, counted, and never there in the clear."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.admission.key_store import MAX_LIFETIME_S, KeyStore
from forebay.admission.keys import Keyring, Role
from forebay.errors import Failure
from forebay.testbed.virtual import VirtualWorld
from forebay.testbed.virtual.loop import VirtualLoop

NS = 1_000_000_000


@pytest.fixture
def world() -> Iterator[VirtualWorld]:
    loop = VirtualLoop()
    yield VirtualWorld(loop, seed=1)
    loop.close()


@pytest.fixture
def store(tmp_path: Path, world: VirtualWorld) -> Iterator[KeyStore]:
    opened = KeyStore.open(tmp_path, world)
    yield opened
    opened.close()


def ring_of(store: KeyStore) -> Keyring:
    ring = Keyring(store.pepper)
    ring.load(store.snapshot())
    return ring


def bytes_on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


# -- making


def test_a_new_key_identifies_its_tenant(store: KeyStore, world: VirtualWorld) -> None:
    key = store.create(team="web", project="shop", name="checkout service")
    tenant = ring_of(store).identify(key.secret.encode(), world.wall_ns())
    assert (tenant.team, tenant.project, tenant.key_id) == ("web", "shop", key.row.id)
    assert key.row.id.startswith("key_")
    assert key.row.name == "checkout service"
    assert key.row.last4 == key.secret[-4:]
    assert key.row.created_ns == world.wall_ns()


def test_a_key_belongs_to_the_default_project_unless_told(store: KeyStore) -> None:
    row = store.create().row
    assert (row.team, row.project, row.role, row.expires_ns) == ("default", "default", "caller", 0)


def test_a_key_expires_after_its_lifetime(store: KeyStore, world: VirtualWorld) -> None:
    secret = store.create(lifetime_s=60).secret.encode()
    ring = ring_of(store)
    world.wall_jump_ns = 60 * NS - 1
    assert ring.identify(secret, world.wall_ns()).project == "default"
    world.wall_jump_ns = 60 * NS
    with pytest.raises(Failure, match="has expired"):
        ring.identify(secret, world.wall_ns())


def test_a_known_project_keeps_its_team(store: KeyStore) -> None:
    store.create(team="web", project="shop")
    assert store.create(project="shop").row.team == "web"
    with pytest.raises(Failure, match="belongs to team web, not mobile"):
        store.create(team="mobile", project="shop")
    assert len(store.snapshot()) == 2


@pytest.mark.parametrize("value", ["", "Shop", "-x", "a b", "a/b", "é", "x" * 64, "a\n", "..", "'"])
@pytest.mark.parametrize("what", ["team", "project"])
def test_an_id_that_could_not_stand_in_a_url_is_refused(
    store: KeyStore, what: str, value: str
) -> None:
    team, project = (value, "new") if what == "team" else (None, value)
    with pytest.raises(Failure) as caught:
        store.create(team=team, project=project)
    assert caught.value.param == what
    assert store.snapshot() == []


@pytest.mark.parametrize("name", ["x" * 101, "two\nlines", "\x1b[31mred", "\x00"])
def test_a_name_that_could_upset_a_terminal_is_refused(store: KeyStore, name: str) -> None:
    with pytest.raises(Failure, match="printable"):
        store.create(name=name)


@pytest.mark.parametrize("lifetime_s", [0, -5, MAX_LIFETIME_S + 1, 10**30])
def test_an_impossible_lifetime_is_refused(store: KeyStore, lifetime_s: int) -> None:
    with pytest.raises(Failure, match="can't expire"):
        store.create(lifetime_s=lifetime_s)


def test_the_longest_lifetime_is_kept(store: KeyStore, world: VirtualWorld) -> None:
    row = store.create(lifetime_s=MAX_LIFETIME_S).row
    assert store.snapshot()[0].expires_ns == row.expires_ns == world.wall_ns() + 3_153_600_000 * NS


# -- what is on the disk


def test_no_key_is_ever_on_the_disk(store: KeyStore, tmp_path: Path) -> None:
    made = [store.create(name=f"n{n}").secret for n in range(20)]
    admin = store.ensure_admin()
    assert admin is not None
    store.revoke(store.snapshot()[0].id)
    held = bytes_on_disk(tmp_path)
    assert b"n19" in held  # the looking works
    for secret in [*made, admin]:
        assert secret.encode() not in held
        assert secret[3:46].encode() not in held
        assert secret[3:19].encode() not in held


def test_the_pepper_is_not_in_the_database_and_only_for_its_owner(
    store: KeyStore, tmp_path: Path
) -> None:
    assert (tmp_path / "pepper").read_bytes() == store.pepper
    assert len(store.pepper) == 32
    assert stat.S_IMODE((tmp_path / "pepper").stat().st_mode) == 0o600
    for path in tmp_path.glob("forebay.db*"):
        assert store.pepper not in path.read_bytes()


def test_a_key_in_the_hand_is_not_printed_by_accident(store: KeyStore) -> None:
    key = store.create()
    assert key.secret not in repr(key)
    assert key.secret not in f"{key}"


def test_keys_outlive_a_restart(tmp_path: Path, world: VirtualWorld) -> None:
    first = KeyStore.open(tmp_path, world)
    secret = first.create().secret
    first.close()
    second = KeyStore.open(tmp_path, world)
    assert ring_of(second).identify(secret.encode(), world.wall_ns()).project == "default"
    second.close()


def reopening_fails(tmp_path: Path, world: VirtualWorld) -> str:
    with pytest.raises(Failure) as caught:
        KeyStore.open(tmp_path, world)
    assert caught.value.code.name == "not_configured"
    return caught.value.message


def test_a_lost_pepper_is_noticed_not_replaced(
    store: KeyStore, tmp_path: Path, world: VirtualWorld
) -> None:
    (tmp_path / "pepper").unlink()
    assert "No such file" in reopening_fails(tmp_path, world)
    assert not (tmp_path / "pepper").exists()


def test_another_pepper_is_noticed(store: KeyStore, tmp_path: Path, world: VirtualWorld) -> None:
    (tmp_path / "pepper").write_bytes(os.urandom(32))
    assert "is not the one" in reopening_fails(tmp_path, world)


def test_a_cut_pepper_is_noticed(store: KeyStore, tmp_path: Path, world: VirtualWorld) -> None:
    (tmp_path / "pepper").write_bytes(store.pepper[:31])
    assert "holds 31 bytes, not 32" in reopening_fails(tmp_path, world)


def test_of_two_that_start_together_both_have_the_same_pepper(tmp_path: Path) -> None:
    together = threading.Barrier(6)
    peppers: list[bytes] = []

    def start(seed: int) -> None:
        loop = VirtualLoop()
        together.wait()
        opened = KeyStore.open(tmp_path, VirtualWorld(loop, seed))
        peppers.append(opened.pepper)
        opened.close()
        loop.close()

    threads = [threading.Thread(target=start, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(peppers) == 6
    assert len(set(peppers)) == 1


# -- the first admin key


def test_the_first_admin_key_is_made_and_told_once(store: KeyStore, world: VirtualWorld) -> None:
    secret = store.ensure_admin()
    assert secret is not None
    assert ring_of(store).is_admin(secret.encode(), world.wall_ns())
    assert store.ensure_admin() is None
    assert [row.role for row in store.snapshot()] == ["admin"]


def test_revoking_the_first_admin_key_brings_no_second_one(store: KeyStore) -> None:
    store.ensure_admin()
    store.revoke(store.snapshot()[0].id)
    assert store.ensure_admin() is None


def test_callers_keys_are_no_reason_to_have_no_admin(store: KeyStore) -> None:
    store.create()
    assert store.ensure_admin() is not None


# -- revoking


def test_a_revoked_key_is_refused_from_the_next_snapshot_on(
    store: KeyStore, world: VirtualWorld
) -> None:
    kept, dropped = store.create(), store.create()
    assert store.revoke(dropped.row.id).revoked_ns == world.wall_ns()
    ring = ring_of(store)
    assert ring.identify(kept.secret.encode(), world.wall_ns()).key_id == kept.row.id
    with pytest.raises(Failure, match="was revoked"):
        ring.identify(dropped.secret.encode(), world.wall_ns())


def test_the_beginning_of_an_id_is_enough(store: KeyStore) -> None:
    rows = [store.create().row for _ in range(3)]
    assert store.revoke(rows[0].id[4:12]).id == rows[0].id  # without key_
    assert store.revoke(rows[1].id[:12]).id == rows[1].id


def test_revoking_twice_keeps_the_first_time(store: KeyStore, world: VirtualWorld) -> None:
    key = store.create().row
    first = store.revoke(key.id)
    world.wall_jump_ns = 5 * NS
    assert store.revoke(key.id) == first


@pytest.mark.parametrize("which", ["", "key_", "key_zz", "%", "_", "key_%", "' OR 1=1"])
def test_an_id_that_names_no_single_key_revokes_nothing(store: KeyStore, which: str) -> None:
    for _ in range(2):
        store.create()
    with pytest.raises(Failure):
        store.revoke(which)
    assert all(not row.revoked_ns for row in store.snapshot())


def test_an_ambiguous_id_lists_what_it_could_be(store: KeyStore) -> None:
    ids = [store.create().row.id for _ in range(17)]  # two share their first digit
    first = next(i for i in ids if sum(j[:5] == i[:5] for j in ids) > 1)
    with pytest.raises(Failure, match="keys have an id that begins with") as caught:
        store.revoke(first[:5])
    assert first in caught.value.message


# -- change detection


def test_version_moves_with_every_change_by_anybody(
    store: KeyStore, tmp_path: Path, world: VirtualWorld
) -> None:
    other = KeyStore.open(tmp_path, world)
    seen = [store.version()]
    key = store.create().row
    seen.append(store.version())
    other.create()
    seen.append(store.version())
    other.revoke(key.id)
    seen.append(store.version())
    other.close()
    assert all(seen[n] != seen[n + 1] for n in range(3))
    store.snapshot()
    assert store.version() == seen[-1]


ROLES: st.SearchStrategy[Role] = st.sampled_from(("admin", "caller"))
MAKES = st.tuples(st.just("make"), st.sampled_from(("a", "b")), ROLES, st.sampled_from((None, 10)))
REVOKES = st.tuples(st.just("revoke"), st.integers(0, 5))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(MAKES | REVOKES, max_size=8))
def test_at_any_time_the_ring_knows_exactly_the_keys_that_are_active(
    store: KeyStore, world: VirtualWorld, steps: list[tuple[object, ...]]
) -> None:
    """Against a model: what was made, minus what was revoked, minus what has expired."""
    made: list[tuple[str, str, str, bool, int]] = []  # secret, id, project, admin, expires at
    revoked: set[str] = set()
    for step in steps:
        if step[0] == "make":
            _, project, role, lifetime_s = step
            key = store.create(project=str(project), role=role, lifetime_s=lifetime_s)  # type: ignore[arg-type]
            expires = world.wall_ns() + 10 * NS if lifetime_s else 2**62
            made.append((key.secret, key.row.id, str(project), role == "admin", expires))
        elif made:
            _, at = step
            revoked.add(made[int(str(at)) % len(made)][1])
            store.revoke(made[int(str(at)) % len(made)][1])
        world.wall_jump_ns += 3 * NS
    ring = ring_of(store)
    for secret, key_id, project, admin, expires in made:
        active = key_id not in revoked and world.wall_ns() < expires
        assert ring.is_admin(secret.encode(), world.wall_ns()) == (active and admin)
        if active:
            tenant = ring.identify(secret.encode(), world.wall_ns())
            assert (tenant.project, tenant.key_id) == (project, key_id)
        else:
            with pytest.raises(Failure):
                ring.identify(secret.encode(), world.wall_ns())
