"""Where gateway keys are kept: rows in the main database, and the pepper beside it.

The database holds keyed digests, never a key; the pepper that keys them is a file of its
own, readable by its owner alone, so that a copy of the database by itself confirms no guess.
Both belong in a backup, apart from each other.

A lost pepper would turn every key into an unknown one without a word. So the database also
keeps the pepper's fingerprint, and opening compares: a missing file is made new only for a
database that has no keys yet.

The back office polls `version()` and sends `snapshot()` to the workers when it moved. The
`forebay keys` command writes here directly; it needs no running server.
"""

import hashlib
import os
import re
import secrets
from pathlib import Path

import msgspec

from forebay.admission.keys import ENTROPY_BYTES, PEPPER_BYTES, KeyRow, Role, compose, digest
from forebay.errors import Failure
from forebay.stores import Sql, sqlite
from forebay.world import World

PEPPER_NAME = "pepper"
MAX_NAME = 100  # characters of a key's free-text name
MAX_LIFETIME_S = 100 * 365 * 86_400  # what "for ever" should have been, and fits 64 bits of ns

#: Ids of teams and projects stand in URLs, metric labels and cache keys, as they are.
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

_SELECT = """
SELECT keys.id, projects.team_id, keys.project_id, keys.name, keys.role, keys.digest,
       keys.last4, keys.created_ns, keys.expires_ns, keys.revoked_ns
FROM keys JOIN projects ON projects.id = keys.project_id
"""


class NewKey(msgspec.Struct, frozen=True):
    """The one moment a key is in the clear: it is shown to its owner and forgotten."""

    row: KeyRow
    secret: str

    def __repr__(self) -> str:  # a log line must not be the second place
        return f"<NewKey {self.row.id} …{self.row.last4}>"


class KeyStore:
    """Keys of one installation. Sync; used from one thread."""

    def __init__(self, sql: Sql, pepper: bytes, world: World) -> None:
        self._sql = sql
        self.pepper = pepper
        self._world = world

    @classmethod
    def open(cls, data_dir: Path, world: World) -> "KeyStore":
        """The store of a data folder, made where there is none.

        Raises Failure(not_configured) where the pepper is not the one the keys were made
        with, and what `sqlite.open` raises.
        """
        sql = sqlite.open_main(data_dir)
        try:
            return cls(sql, _pepper(sql, data_dir / PEPPER_NAME), world)
        except BaseException:
            sql.close()
            raise

    def create(
        self,
        *,
        team: str | None = None,
        project: str = "default",
        name: str = "",
        role: Role = "caller",
        lifetime_s: int | None = None,
    ) -> NewKey:
        """A new key. A project or team that isn't there yet is made.

        `team` None is the team the project has, `default` for a new project; `lifetime_s`
        None means that the key never expires.

        Raises Failure(bad_request): a project of another team, a bad id, name or lifetime.
        """
        _check_id("project", project)
        if team is not None:
            _check_id("team", team)
        if len(name) > MAX_NAME or not name.isprintable():
            raise Failure(
                "bad_request",
                f"A key's name is printable and at most {MAX_NAME} characters, not {name!r:.120}.",
                param="name",
            )
        if lifetime_s is not None and not 0 < lifetime_s <= MAX_LIFETIME_S:
            raise Failure(
                "bad_request",
                f"A key can't expire {lifetime_s} s from now: 1 s to 100 years is possible.",
                hint="Leave it out for a key that never expires.",
                param="expires",
            )
        with self._sql.transaction():
            return self._create(team, project, name, role, lifetime_s)

    def ensure_admin(self) -> str | None:
        """The first admin key of an installation, in the clear; None ever after.

        Revoking or losing it brings no second one: `forebay keys create --role admin` does.
        """
        with self._sql.transaction():
            if self._sql.rows("SELECT 1 FROM keys WHERE role = 'admin' LIMIT 1"):
                return None
            return self._create(None, "default", "first admin", "admin", None).secret

    def revoke(self, which: str) -> KeyRow:
        """Revoke a key by its id or the beginning of it, `key_` or not; once is for ever.

        Raises Failure(bad_request) where no key or more than one begins so.
        """
        prefix = "key_" + which.removeprefix("key_")
        with self._sql.transaction():
            # Compared here, not by LIKE: % and _ would be wildcards.
            found = [row for row in self.snapshot() if row.id.startswith(prefix)]
            if len(found) != 1 or prefix == "key_":
                raise _not_one(which, found)
            if not found[0].revoked_ns:
                self._sql.run(
                    "UPDATE keys SET revoked_ns = ? WHERE id = ?",
                    self._world.wall_ns(),
                    found[0].id,
                )
            return self._get(found[0].id)

    def snapshot(self) -> list[KeyRow]:
        """Every key ever made, oldest first; revoked ones too, so that holders are told."""
        return [KeyRow(*row) for row in self._sql.rows(_SELECT + "ORDER BY keys.created_ns, 1")]

    def version(self) -> object:
        """Another one after every change, by this or any other process (see `Sql`)."""
        return self._sql.version()

    def close(self) -> None:
        self._sql.close()

    def __repr__(self) -> str:
        return f"<KeyStore {self._sql!r}>"

    def _create(
        self, team: str | None, project: str, name: str, role: Role, lifetime_s: int | None
    ) -> NewKey:
        self._ensure_project(team, project)
        secret = compose(secrets.token_bytes(ENTROPY_BYTES))
        now = self._world.wall_ns()
        key_id = self._world.new_id("key_")
        values = (
            key_id,
            project,
            name,
            role,
            digest(secret.encode(), self.pepper),
            secret[-4:],
            now,
            0 if lifetime_s is None else now + lifetime_s * 1_000_000_000,
        )
        self._sql.run(
            "INSERT INTO keys (id, project_id, name, role, digest, last4, created_ns, expires_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *values,
        )
        return NewKey(self._get(key_id), secret)

    def _ensure_project(self, team: str | None, project: str) -> None:
        rows = self._sql.rows("SELECT team_id FROM projects WHERE id = ?", project)
        if not rows:
            team = team or "default"
            if not self._sql.rows("SELECT 1 FROM teams WHERE id = ?", team):
                self._sql.run("INSERT INTO teams (id) VALUES (?)", team)
            self._sql.run("INSERT INTO projects (id, team_id) VALUES (?, ?)", project, team)
        elif team is not None and rows[0][0] != team:
            raise Failure(
                "bad_request",
                f"The project {project} belongs to team {rows[0][0]}, not {team}.",
                hint="Project ids are unique over all teams; take another one.",
                param="project",
            )

    def _get(self, key_id: str) -> KeyRow:
        (row,) = self._sql.rows(_SELECT + "WHERE keys.id = ?", key_id)
        return KeyRow(*row)


def _not_one(which: str, found: list[KeyRow]) -> Failure:
    if not found:
        message, hint = f"No key has an id that begins with {which!r:.80}.", ""
    else:
        ids = ", ".join(row.id for row in found[:5])
        message = f"{len(found)} keys have an id that begins with {which!r:.80}: {ids}"
        message, hint = message + (", …." if len(found) > 5 else "."), "Give more of it. "
    return Failure("bad_request", message, hint=hint + "forebay keys list shows them all.")


def _check_id(what: str, value: str) -> None:
    if _ID.fullmatch(value) is None:
        raise Failure(
            "bad_request",
            f"{value!r:.80} is no id for a {what}.",
            hint="1 to 63 of a-z, 0-9, dot, dash and underscore, beginning with a-z or 0-9.",
            param=what,
        )


def _fingerprint(pepper: bytes) -> bytes:
    return hashlib.blake2b(key=pepper, digest_size=16, person=b"forebay pepper").digest()


def _pepper(sql: Sql, path: Path) -> bytes:
    # The write lock of the database is held from the look to the note: of two processes that
    # start an installation together, one makes the pepper and both use it.
    with sql.transaction():
        noted = sql.rows("SELECT fingerprint FROM pepper")
        try:
            if not path.exists() and not noted:
                _write_private(path, secrets.token_bytes(PEPPER_BYTES))
            pepper = path.read_bytes()
        except OSError as error:
            raise _wrong_pepper(path, f"cannot be used ({error.strerror})") from error
        if len(pepper) != PEPPER_BYTES:
            raise _wrong_pepper(path, f"holds {len(pepper)} bytes, not {PEPPER_BYTES}")
        if not noted:
            sql.run("INSERT INTO pepper (fingerprint) VALUES (?)", _fingerprint(pepper))
        elif noted[0][0] != _fingerprint(pepper):
            raise _wrong_pepper(path, "is not the one this database's keys were made with")
        return pepper


def _write_private(path: Path, data: bytes) -> None:
    # Under another name until it is whole and on the disk: half a pepper would be for ever.
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    draft.rename(path)


def _wrong_pepper(path: Path, what: str) -> Failure:
    return Failure(
        "not_configured",
        f"The pepper file {path} {what}; with another one every key would be refused.",
        hint="Restore it from a backup, or move forebay.db away to begin with new keys.",
    )
