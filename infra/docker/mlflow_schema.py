"""Schemas of MLflow's databases, of records and of users: python -m mlflow_schema upgrade|wait.

``upgrade`` makes the tables or brings them to this MLflow's version, and opens the account of
studies; one process must do it, before any server starts (servers that meet an empty database make
the tables themselves, and two at once fail). ``wait`` returns when the tables are there; a server's
pod runs it first.
"""

import configparser
import os
import sys
import time
from pathlib import Path

import mlflow
import sqlalchemy
from alembic.script import ScriptDirectory
from mlflow.db import commands as records
from mlflow.server.auth.db.cli import commands as users
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

PACKAGE = Path(mlflow.__file__).parent
MIGRATIONS = {
    "alembic_version": PACKAGE / "store" / "db_migrations",
    "alembic_version_auth": PACKAGE / "server" / "auth" / "db" / "migrations",
}
"""Table that knows a schema's version -> its migrations."""
ACCOUNT = "study"
"""With which studies write. It owns the experiments that it makes and is no administrator."""
GIVE_UP_SECONDS = 1800


def main(verb: str) -> int:
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    settings = configparser.ConfigParser()
    settings.read(os.environ["MLFLOW_AUTH_CONFIG_PATH"])
    databases = dict(zip(MIGRATIONS, (uri, settings["mlflow"]["database_uri"]), strict=True))
    if verb == "upgrade":
        records(["upgrade", uri], standalone_mode=False)
        users(["upgrade", "--url", databases["alembic_version_auth"]], standalone_mode=False)
        open_account(databases["alembic_version_auth"], os.environ["MLFLOW_STUDY_PASSWORD"])
    give_up = time.monotonic() + (GIVE_UP_SECONDS if verb == "wait" else 0)
    while behind := [table for table, uri in databases.items() if not is_current(table, uri)]:
        if time.monotonic() > give_up:
            print(f"not at this MLflow's version: {', '.join(behind)}", file=sys.stderr)
            return 1
        print(f"waiting for {', '.join(behind)}", flush=True)
        time.sleep(3)
    print(f"both databases are at the version of MLflow {mlflow.__version__}")
    return 0


def open_account(uri: str, password: str) -> None:
    """See that studies have an account with this password."""
    store = SqlAlchemyStore()
    store.init_db(uri)
    if store.has_user(ACCOUNT):
        store.update_user(ACCOUNT, password=password)
    else:
        store.create_user(ACCOUNT, password)
    store.engine.dispose()


def is_current(table: str, uri: str) -> bool:
    """Whether the database is there and its schema is what this MLflow wants."""
    wanted = ScriptDirectory(str(MIGRATIONS[table])).get_current_head()
    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            # One of two names above, not something that was given.
            found = connection.execute(sqlalchemy.text(f"SELECT version_num FROM {table}"))
            return found.scalar() == wanted
    except sqlalchemy.exc.SQLAlchemyError:
        return False
    finally:
        engine.dispose()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("upgrade", "wait"):
        sys.exit("usage: python -m mlflow_schema upgrade|wait")
    sys.exit(main(sys.argv[1]))
