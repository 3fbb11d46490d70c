"""Defaults that depend on what a catalogue or a query set holds."""

from sqlalchemy import Connection, text

from nightshift.stores.catalog import catalogs
from nightshift.stores.index import indexes
from nightshift.stores.postgres.database import Database

__all__ = ["default_item_parts", "index_parts", "query_set_parts"]


def default_item_parts(database: Database, catalog: str) -> str:
    """`image` where any item has an image, else `text`.

    A caption kept with a picture is for people, until someone says that models may see it.
    """
    with database.begin() as connection:
        catalog_id = catalogs.catalog_id(connection, catalog)
        with_image = connection.execute(
            text(
                "SELECT EXISTS (SELECT FROM item WHERE catalog_id = :catalog "
                "AND image_hash IS NOT NULL)"
            ),
            {"catalog": catalog_id},
        ).scalar_one()
    return "image" if with_image else "text"


def query_set_parts(connection: Connection, query_set_id: int) -> str:
    """The kinds of parts that the queries of a set have."""
    row = connection.execute(
        text(
            "SELECT bool_or(text_hash IS NOT NULL) AS text, "
            "bool_or(image_hash IS NOT NULL) AS image "
            "FROM query WHERE query_set_id = :queries"
        ),
        {"queries": query_set_id},
    ).one()
    return ",".join(kind for kind, present in (("text", row.text), ("image", row.image)) if present)


def index_parts(database: Database, catalog: str, index_name: str | None) -> str:
    """The parts that the embedder of the newest ready index saw; what a scorer may see by default.

    Raises:
        NotFoundError: When no index of the catalogue is ready.
    """
    with database.begin() as connection:
        return indexes.ready_index(connection, catalog, index_name).parts
