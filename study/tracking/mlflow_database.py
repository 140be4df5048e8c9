"""MLflow's own database, a file of SQLite's: made whole or not at all.

MLflow makes its tables one by one in the file itself, which takes a slow disk most of a minute, and
cannot go on with one that a kill left half made. So the file is made beside and renamed when it is
whole; a half-made one, in which nothing is recorded yet, is made anew.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from study.storage.paths import SQLITE_SIDES
from trainables.errors import BadInput
from trainables.secrecy import shown

BUSY_SECONDS = 20.0
"""How long another process may write before a file counts as unreadable; MLflow's own patience."""
QUIET_SECONDS = 10.0
"""A half-made file that nobody has written to for so long is not being made."""
OF_MIGRATIONS = {"alembic_version": 1, "workspaces": 1}
"""Table -> rows in it that MLflow writes while it makes the tables."""
REWRITTEN = "_alembic_tmp_"
"""Start of the name of a table's copy while MLflow changes its columns."""


def prepare(uri: str) -> None:
    """See that MLflow finds a whole database, if ``uri`` names a file of SQLite's. A file that
    holds records is left as it is. Of several processes one makes the file and the others wait.

    Raises:
        BadInput: the file cannot be made.
    """
    # MLflow tells of each change to its tables, which says nothing to a user, and of a full disk in
    # a traceback, beside the line that the study has for it.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    file = _file(uri)
    if file is None:
        return
    written = _written(file)  # before it is opened: SQLite may have to undo what a kill cut short
    if not _is_wanted(file):
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(file) as alone:
            while _is_wanted(file):
                if 0 <= time.time() - written < QUIET_SECONDS:  # by another program, maybe
                    time.sleep(QUIET_SECONDS / 20)
                    written = _written(file)
                else:
                    _make(file, alone)
    except OSError as error:
        raise BadInput(f"--tracking-uri {shown(uri)} cannot be made: {error}") from None


def is_between(uri: str, error: Exception) -> bool:
    """Whether ``error`` is what MLflow says of an SQLite file whose tables a kill left between two
    revisions."""
    file = _file(uri)
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    if file is None or code != sqlite3.SQLITE_ERROR:  # a table is there already, or is missing
        return False
    head, earlier = _revisions()
    found = _read(file)
    return found is not None and found.revision in earlier - {head}


def _file(uri: str) -> Path | None:
    """The file that a URI names; None if it names a server, another database, or memory."""
    scheme, _, name = uri.partition(":///")
    name = name.partition("?")[0]
    if scheme.split("+")[0] != "sqlite" or name in ("", ":memory:") or name.startswith("file:"):
        return None
    return Path(name).resolve()


def _written(file: Path) -> float:
    """When it was last written to, in seconds since 1970; 0 if it is not there."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a file holds."""

    revision: str | None
    """Of its tables; None before the first."""
    rows: Mapping[str, int]
    """Table -> rows in it; two stand for more."""


def _is_wanted(file: Path) -> bool:
    """Whether there is no file yet, or one in which MLflow was making its first tables. Any other,
    and one that SQLite cannot read, is MLflow's to complain of."""
    if not file.is_file():
        return not file.exists()
    found = _read(file)
    # MLflow opens no file without an experiment: it makes one when all tables are there.
    return found is not None and not found.rows.get("experiments") and _is_half_made(found)


def _is_half_made(found: _Found) -> bool:
    """Whether all tables are MLflow's, without a record, and of a revision before the last."""
    from mlflow.store.db.base_sql_model import Base

    head, earlier = _revisions()  # by a module that fills Base too
    known = {*Base.metadata.tables, *OF_MIGRATIONS}
    return found.revision in earlier - {head} and all(
        name in known and rows <= OF_MIGRATIONS.get(name, 0)
        for name, rows in ((n.removeprefix(REWRITTEN), rows) for n, rows in found.rows.items())
    )


def _revisions() -> tuple[str | None, set[str | None]]:
    """The last revision of MLflow's tables, and all; None is that of the first tables."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(db_url=""))
    return scripts.get_current_head(), {None, *(s.revision for s in scripts.walk_revisions())}


def _read(file: Path) -> _Found | None:
    """What a file holds, at one moment; None if SQLite cannot read it."""
    address = f"file:{quote(str(file))}?mode=rw"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as database:
            database.execute("BEGIN")
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            rows = {name: 0 for (name,) in tables if not name.startswith("sqlite_")}
            for name in rows:
                some = f"""SELECT 1 FROM "{name.replace('"', '""')}" LIMIT 2"""
                rows[name] = len(database.execute(some).fetchall())
            revision = None
            if rows.get("alembic_version"):
                (revision,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
            return _Found(revision=revision, rows=rows)
    except sqlite3.Error:
        return None


@contextmanager
def _only_one(file: Path) -> Iterator[bool]:
    """Wait until no other process is here; False where the file system has no locks."""
    lock = file.with_name(f".{file.name}.lock")
    with lock.open("w") as opened:
        alone = False
        with suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_EX)
            alone = True
        yield alone
    lock.unlink(missing_ok=True)  # whoever comes now finds a whole file, by whatever lock


def _make(file: Path, alone: bool) -> None:
    """Make a whole file, in the place of a half-made one."""
    import sqlalchemy
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy.exc import SQLAlchemyError

    start = f".{file.name}-"
    if alone:
        for left_by_killed in file.parent.iterdir():
            if left_by_killed.name.startswith(start):
                left_by_killed.unlink(missing_ok=True)
    beside = file.with_name(f"{start}{uuid.uuid4().hex}")
    engine = sqlalchemy.create_engine(sqlalchemy.URL.create("sqlite", database=str(beside)))

    @sqlalchemy.event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _: object) -> None:
        # Nobody goes on with a file that was left half made: no step has to be on the disk.
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")

    try:
        _initialize_tables(engine)
        engine.dispose()
        with beside.open("rb+") as made:
            os.fsync(made.fileno())
        if _is_wanted(file):  # still: another program, or one without locks, may have made it
            for side in SQLITE_SIDES:  # first: they would be taken for the new file's
                file.with_name(file.name + side).unlink(missing_ok=True)
            file.unlink(missing_ok=True)
        _appear(beside, file)
    except (MlflowException, SQLAlchemyError) as error:
        raise OSError(str(error).splitlines()[0]) from None
    finally:
        engine.dispose()
        beside.unlink(missing_ok=True)


def _appear(beside: Path, file: Path) -> None:
    """Give a file its name, unless another program has just made one of that name."""
    try:
        os.link(beside, file)
    except FileExistsError:
        return
    except OSError:  # not every file system has links
        beside.rename(file)
