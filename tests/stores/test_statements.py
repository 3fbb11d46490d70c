"""Every SQL text is a constant of its module, and Postgres accepts it with the schema as it is."""

import ast
import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psycopg2
import pytest
from sqlalchemy import Executable
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from nightshift.stores.postgres.database import Database

_ROOT = Path(__file__).parents[2]
_ROOMS = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
    "dev-mode-dirs"
]
#: They describe tables; a migration's SQL is for the schema of its day.
_WITHOUT_STATEMENTS = ("schema", "migrations")
_PREPARABLE = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "MERGE", "VALUES"})

_PATHS = sorted(
    path
    for room in _ROOMS
    if room not in _WITHOUT_STATEMENTS
    for path in (_ROOT / room).rglob("*.py")
    if "from sqlalchemy" in path.read_text()
)


def _name(path: Path) -> str:
    """The module that a file holds."""
    parts = path.relative_to(_ROOT).with_suffix("").parts[1:]
    return ".".join(part for part in parts if part != "__init__")


def _statements(value: object, name: str) -> Iterator[tuple[str, Executable]]:
    """The statements of a module's constant, which may be a tuple or a dictionary of them."""
    if isinstance(value, Executable):
        yield name, value
    elif isinstance(value, tuple | list):
        for number, member in enumerate(value):
            yield from _statements(member, f"{name}[{number}]")
    elif isinstance(value, dict):
        for key, member in list(value.items()):
            yield from _statements(member, f"{name}[{key!r}]")


def _constants(module: ModuleType) -> list[tuple[str, Executable]]:
    return [
        statement for name, value in vars(module).items() for statement in _statements(value, name)
    ]


@pytest.fixture(scope="module")
def shared_database(shared_database_url):
    with Database(shared_database_url) as opened:
        yield opened


@pytest.mark.parametrize("path", _PATHS, ids=_name)
def test_sql_text_is_a_constant_of_its_module(path):
    inside = [
        call.lineno
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "text"
    ]

    assert inside == [], f"{path}: text() in a function: {inside}"


@pytest.mark.parametrize("path", _PATHS, ids=_name)
def test_postgres_prepares_every_statement(shared_database, path):
    """Statements that it cannot prepare, such as CREATE TEMP TABLE, run with NULL parameters."""
    wrong = {}
    with shared_database.sketch() as connection:
        for name, statement in _constants(importlib.import_module(_name(path))):
            compiled = statement.compile(
                dialect=postgresql.dialect(paramstyle="numeric_dollar"),
                compile_kwargs={"render_postcompile": True},
            )
            sql = str(compiled).strip()
            try:
                with connection.begin_nested():
                    if sql.split()[0].upper() in _PREPARABLE:
                        connection.connection.cursor().execute(f"PREPARE checked AS {sql}")
                        connection.connection.cursor().execute("DEALLOCATE checked")
                    else:
                        connection.execute(statement, dict.fromkeys(compiled.params))
            except (DBAPIError, psycopg2.Error) as error:
                wrong[name] = str(error)

    assert wrong == {}
