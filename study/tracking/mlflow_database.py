"""Creates MLflow's SQLite database whole or not at all.

MLflow creates its tables one by one in the file itself, which takes a slow disk most of a minute,
and it cannot go on with a file that a kill left unfinished. So the tables are created in a file
beside it, which is renamed when it is whole. An unfinished file without records is replaced.
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

from study.storage.paths import SQLITE_SIDES, real_path
from trainables.errors import BadInput
from trainables.secrecy import shown

BUSY_SECONDS = 20.0
"""Seconds for which another process may write before a file counts as unreadable, as MLflow has
it."""
QUIET_SECONDS = 10.0
"""Seconds without a write after which no process is taken to be creating an unfinished file."""
MIGRATION_ROWS = {"alembic_version": 1, "workspaces": 1}
"""Table -> number of rows that MLflow writes into it while it creates the tables."""
COPY_PREFIX = "_alembic_tmp_"
"""Start of the name of the copy of a table whose columns MLflow is changing."""


def prepare(uri: str) -> None:
    """Create the database that ``uri`` names, if it is an SQLite file that does not exist or is
    unfinished. A file that holds records is left as it is. If several processes call this at once,
    one creates the file and the others wait.

    Raises:
        BadInput: the file cannot be created.
    """
    # MLflow tells of each change to its tables, which says nothing to a user, and of a full disk in
    # a traceback, beside the line that the study has for it.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    file = sqlite_file(uri)
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
    """Whether MLflow raised ``error`` because a kill left the tables of an SQLite file between two
    revisions."""
    file = sqlite_file(uri)
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    if file is None or code != sqlite3.SQLITE_ERROR:  # a table is there already, or is missing
        return False
    head, earlier = _revisions()
    found = _read(file)
    return found is not None and found.revision in earlier - {head}


def sqlite_file(uri: str) -> Path | None:
    """The SQLite file that a URI names; None if it names a server, another database, or memory."""
    scheme, _, name = uri.partition(":///")
    name = name.partition("?")[0]
    if scheme.split("+")[0] != "sqlite" or name in ("", ":memory:") or name.startswith("file:"):
        return None
    return real_path(name)


def _written(file: Path) -> float:
    """Time of the last write to a file, in seconds since 1970; 0 if there is no file."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


@dataclass(frozen=True, kw_only=True)
class _Content:
    """The content of a database file, as far as it tells whether the file is unfinished."""

    revision: str | None
    """Revision of the tables; None before the first."""
    rows: Mapping[str, int]
    """Table -> number of its rows, counted up to two."""


def _is_wanted(file: Path) -> bool:
    """Whether a file is missing or unfinished, so that it is to be created. MLflow itself complains
    of any other file that it cannot use, such as one that SQLite cannot read."""
    if not file.is_file():
        return not file.exists()
    found = _read(file)
    # MLflow creates an experiment when all tables exist, and opens no file without one.
    return found is not None and not found.rows.get("experiments") and _is_unfinished(found)


def _is_unfinished(found: _Content) -> bool:
    """Whether all tables in a file are MLflow's, hold no record, and are of a revision before the
    last."""
    from mlflow.store.db.base_sql_model import Base

    head, earlier = _revisions()  # by a module that fills Base too
    known = {*Base.metadata.tables, *MIGRATION_ROWS}
    return found.revision in earlier - {head} and all(
        name in known and rows <= MIGRATION_ROWS.get(name, 0)
        for name, rows in ((n.removeprefix(COPY_PREFIX), rows) for n, rows in found.rows.items())
    )


def _revisions() -> tuple[str | None, set[str | None]]:
    """The last revision of MLflow's tables, and all revisions; None stands for the first tables."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(db_url=""))
    return scripts.get_current_head(), {None, *(s.revision for s in scripts.walk_revisions())}


def _read(file: Path) -> _Content | None:
    """The content of a file at one moment; None if SQLite cannot read it."""
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
            return _Content(revision=revision, rows=rows)
    except sqlite3.Error:
        return None


@contextmanager
def _only_one(file: Path) -> Iterator[bool]:
    """Hold the lock under which a file is created; False where the file system has no locks."""
    lock = file.with_name(f".{file.name}.lock")
    with lock.open("w") as opened:
        alone = False
        with suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_EX)
            alone = True
        yield alone
    lock.unlink(missing_ok=True)  # whoever comes now finds a whole file, by whatever lock


def _make(file: Path, alone: bool) -> None:
    """Create a whole file, in the place of an unfinished one. ``alone``: the lock is held."""
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
        # Nobody goes on with a file that was left unfinished: no step has to be on the disk.
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
        _give_name(beside, file)
    except (MlflowException, SQLAlchemyError) as error:
        raise OSError(str(error).splitlines()[0]) from None
    finally:
        engine.dispose()
        beside.unlink(missing_ok=True)


def _give_name(beside: Path, file: Path) -> None:
    """Rename a file, unless another program has just created one of that name."""
    try:
        os.link(beside, file)
    except FileExistsError:
        return
    except OSError:  # not every file system has links
        beside.rename(file)
