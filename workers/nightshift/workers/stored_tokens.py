"""Visual tokens that earlier runs stored, read in place of pixels."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.records import decode_record
from nightshift.models.inputs.codecs.tokens import StoredVisualTokens
from nightshift.schema.errors import InputError, ModelError
from nightshift.schema.params import EmbedderParams, ScorerParams
from nightshift.scoring.codecs import parse_codec
from nightshift.scoring.prompts import Side
from nightshift.stores.catalog.contents import StoredRecord
from nightshift.stores.ledger.run_types import IndexedRun, RerankRun
from nightshift.stores.models import embedder_card
from nightshift.stores.postgres.database import Database
from nightshift.stores.tokens import token_sets
from nightshift.stores.tokens.shards import read_records
from nightshift.stores.tokens.token_sets import TokenPlace, TokenSetRow
from nightshift.workers.failures import Outcome

__all__ = ["StoredTokens", "codec_of_index", "codec_of_run", "codec_of_set"]

_log = logging.getLogger(__name__)

_CANDIDATES: frozenset[Side] = frozenset({"candidate"})
_BOTH: frozenset[Side] = frozenset({"query", "candidate"})


def codec_of_set(database: Database, token_set: TokenSetRow) -> Codec:
    """The codec that a set's tokens are written with; ModelError where it is not trained yet."""
    spec = parse_codec(token_set.codec)
    with database.begin() as connection:
        codebook = token_sets.codebook(connection, token_set.id) if spec.trained else None
    return Codec(spec, width=token_set.width, precision=token_set.precision, codebook=codebook)


def codec_of_run(database: Database, run: RerankRun) -> Codec | None:
    """The codec that a re-ranking run shows images through; None where it loses nothing.

    Raises:
        ModelError: Its token set is gone, or holds another codebook than it was planned with.
    """
    return _codec_as_planned(database, run, _set_of_run(database, run), run.params.scorer)


def codec_of_index(database: Database, run: IndexedRun) -> Codec | None:
    """The codec of items for the embedder of a run's index; None where it loses nothing.

    Raises:
        ModelError: As for `codec_of_run`.
    """
    token_set, params = _set_of_index(database, run)
    return _codec_as_planned(database, run, token_set, params)


@dataclass(slots=True, kw_only=True)
class StoredTokens:
    """The tokens of one job's records, on the sides that may be shown them."""

    database: Database
    token_set: TokenSetRow | None
    codec: Codec | None
    sides: frozenset[Side]
    #: One notice for each shard that is damaged, by its address.
    damaged: dict[str, Outcome] = field(default_factory=dict)
    _places: dict[bytes, TokenPlace] = field(default_factory=dict)

    @classmethod
    def of_run(cls, database: Database, run: RerankRun) -> "StoredTokens":
        """The tokens for the scorer of a run; none where the run has no token set."""
        scorer = run.params.scorer
        coded = scorer.codec != "none" and not scorer.code_queries
        return cls._open(database, _set_of_run(database, run), _CANDIDATES if coded else _BOTH)

    @classmethod
    def of_answers(cls, database: Database, run: RerankRun) -> "StoredTokens":
        """The tokens for answers, which are shown images through no codec."""
        lossless = run.params.scorer.codec == "none"
        return cls._open(database, _set_of_run(database, run) if lossless else None, _BOTH)

    @classmethod
    def of_index(cls, database: Database, run: IndexedRun) -> "StoredTokens":
        """The tokens for the embedder of a run's index; none where it shares no vision tower."""
        token_set, params = _set_of_index(database, run)
        return cls._open(database, token_set, _BOTH if params.codec == "none" else _CANDIDATES)

    @classmethod
    def _open(
        cls, database: Database, token_set: TokenSetRow | None, sides: frozenset[Side]
    ) -> "StoredTokens":
        codec = None if token_set is None else codec_of_set(database, token_set)
        return cls(database=database, token_set=token_set, codec=codec, sides=sides)

    def locate(self, records: Mapping[Side, Iterable[StoredRecord]]) -> None:
        """Find out, in one go, which of a job's records have tokens."""
        contents = {
            record.hashes.image
            for side, of_side in records.items()
            if side in self.sides
            for record in of_side
            if record.hashes.image is not None
        }
        if self.token_set is None or not contents:
            return
        with self.database.begin() as connection:
            places = token_sets.find_records(connection, self.token_set, sorted(contents))
        self._places.update(places)

    def read(self, side: Side, record: StoredRecord) -> tuple[StoredVisualTokens, ...]:
        """The tokens of a record's images, in order; none where its pixels must be read.

        A damaged shard costs time but no result: pixels give the same scores.
        """
        place = self._places.get(record.hashes.image or b"") if side in self.sides else None
        if place is None or self.codec is None:
            return ()
        (data,) = read_records(place.address, [place.place])
        try:
            if isinstance(data, InputError):
                raise data
            return decode_record(data, self.codec)
        except InputError as error:
            if place.address not in self.damaged:
                _log.warning("%s; reading the images instead", error)
                self.damaged[place.address] = Outcome.notice(
                    place.address, error.reason, str(error)
                )
            return ()


def _set_of_run(database: Database, run: RerankRun) -> TokenSetRow | None:
    """The token set that the scorer of a run reads."""
    if run.token_set_id is None:
        return None
    with database.begin() as connection:
        return token_sets.get_set(connection, run.token_set_id)


def _set_of_index(database: Database, run: IndexedRun) -> tuple[TokenSetRow | None, EmbedderParams]:
    """The token set that the embedder of a run's index reads, and how it embeds."""
    with database.begin() as connection:
        card = embedder_card(connection, run.embedder_fingerprint)
        if "vision" not in card:
            return None, EmbedderParams()
        params = EmbedderParams.model_validate(card["params"])
        token_set = token_sets.find_set(
            connection,
            catalog_id=run.catalog_id,
            vision_fingerprint=card["vision"],
            codec=params.codec,
        )
    return token_set, params


def _codec_as_planned(
    database: Database,
    run: IndexedRun,
    token_set: TokenSetRow | None,
    params: ScorerParams | EmbedderParams,
) -> Codec | None:
    if params.codec == "none":
        return None
    if token_set is None:
        raise ModelError(
            f"the {params.codec} tokens of run {run.id} were deleted; build them again and plan "
            "the run again"
        )
    if (token_set.codebook_digest or "") != params.codebook:
        raise ModelError(
            f"the codebook of {token_set.codec} is not the one that run {run.id} was planned with; "
            "plan the run again"
        )
    return codec_of_set(database, token_set)
