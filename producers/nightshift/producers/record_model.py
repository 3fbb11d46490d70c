"""The row of a model that a run is planned with."""

from sqlalchemy import Connection

from nightshift.schema.distribution import installed_version
from nightshift.schema.models import ModelFacts
from nightshift.stores.models import upsert_model

__all__ = ["record_model"]


def record_model(connection: Connection, facts: ModelFacts) -> None:
    """Keep the card of a model under its fingerprint, with the version of this program."""
    upsert_model(
        connection,
        fingerprint=facts.fingerprint,
        kind=facts.kind,
        spec=facts.spec,
        card=facts.card,
        package_version=installed_version(),
    )
