"""Statements on the tables of MLflow's database, which is taken as it is: versions of MLflow differ
in tables and columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.sql.expression import TableClause

VALUES_AT_ONCE = 500
"""Values in one statement: databases allow some hundreds."""


class MlflowTables:
    """The tables of a database. Each method makes one statement, or as many as its values need."""

    def __init__(self, columns: Mapping[str, set[str]]) -> None:
        """Take the names of the ``columns`` of each table."""
        self.columns = columns

    def rows(
        self, connection: Connection, table: str, key: str, values: Sequence[str]
    ) -> list[Any]:
        """Rows of a table whose column ``key`` has one of these values."""
        from sqlalchemy import select

        clause, found = self._clause(table), list[Any]()
        for some in _pieces(values):
            asked = select(clause).where(clause.c[key].in_(some))
            found += connection.execute(asked).mappings().all()
        return found

    def delete(self, connection: Connection, table: str, key: str, values: Sequence[str]) -> None:
        """Delete the rows of a table whose column ``key`` has one of these values."""
        from sqlalchemy import delete

        clause = self._clause(table)
        for some in _pieces(values):
            connection.execute(delete(clause).where(clause.c[key].in_(some)))

    def forget(self, connection: Connection, table: str, key: str, values: Sequence[str]) -> None:
        """Empty the column ``key`` of a table where it has one of these values."""
        from sqlalchemy import update

        clause = self._clause(table)
        for some in _pieces(values):
            empty = update(clause).where(clause.c[key].in_(some)).values({key: None})
            connection.execute(empty)

    def where(self, connection: Connection, table: str, keys: Mapping[str, Any]) -> list[Any]:
        """Rows of a table with these values of columns."""
        from sqlalchemy import select

        clause = self._clause(table)
        asked = select(clause).where(*(clause.c[key] == value for key, value in keys.items()))
        return list(connection.execute(asked).mappings().all())

    def delete_where(self, connection: Connection, table: str, keys: Mapping[str, Any]) -> None:
        """Delete the rows of a table with these values of columns."""
        from sqlalchemy import delete

        clause = self._clause(table)
        asked = delete(clause).where(*(clause.c[key] == value for key, value in keys.items()))
        connection.execute(asked)

    def _clause(self, table: str) -> TableClause:
        from sqlalchemy import column
        from sqlalchemy import table as named

        return named(table, *(column(each) for each in sorted(self.columns[table])))


def _pieces(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), VALUES_AT_ONCE):
        yield values[start : start + VALUES_AT_ONCE]
