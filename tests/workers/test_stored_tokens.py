"""Stored visual tokens are found by content: whoever shows the image, and wherever it lies."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import text

from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.records import encode_record
from nightshift.models.inputs.codecs.tokens import StoredVisualTokens
from nightshift.schema.identity import content_hashes
from nightshift.schema.params import RerankParams, ScorerParams
from nightshift.schema.records import ImagePart
from nightshift.scoring.codecs import parse_codec
from nightshift.stores.catalog.contents import load_items, load_queries, parts_to_json
from nightshift.stores.ledger import runs
from nightshift.stores.tokens import token_sets
from nightshift.stores.tokens.shards import writing_shard
from nightshift.workers.stored_tokens import StoredTokens
from tests.catalog_rows import replace_parts
from tests.results.ranked import SCORER, add_reference_run

WIDTH = 4
DIGEST = "ab" * 32


@pytest.fixture
def opened(database, tmp_path):
    """Opens the tokens of a run in whose catalogue i1 shows the image `DIGEST`.

    Query q1 shows the same bytes from another address, where nothing is; q2 another image.
    """
    run_id = add_reference_run(database)
    with database.begin() as connection:
        replace_parts(connection, "i1", ImagePart(uri="/shop/1.png", sha256=DIGEST))
        for name, uri, digest in (
            ("q1", "https://elsewhere.example/x.png", DIGEST),
            ("q2", "/shop/2.png", "cd" * 32),
        ):
            parts = (ImagePart(uri=uri, sha256=digest),)
            connection.execute(
                text(
                    "UPDATE query SET parts = :parts, image_hash = :hash, text_hash = NULL "
                    "WHERE external_id = :name"
                ),
                {
                    "parts": json.dumps(parts_to_json(parts)),
                    "hash": content_hashes(parts).image,
                    "name": name,
                },
            )

    def open_with(codec):
        _store(database, run_id, codec, str(tmp_path / codec))
        with database.begin() as connection:
            run = runs.get_run(connection, run_id)
            stored_records = [
                *load_queries(connection, _ids(connection, "query")).values(),
                *load_items(connection, _ids(connection, "item"), revision=1).values(),
            ]
            records = {record.external_id: record for record in stored_records}
        params = RerankParams(scorer=ScorerParams(codec=codec))
        stored = StoredTokens.of_run(database, replace(run, params=params))
        stored.locate({"query": [records["q1"], records["q2"]], "candidate": [records["i1"]]})
        return stored, records

    return open_with


def _ids(connection, table):
    return list(connection.execute(text(f"SELECT id FROM {table} ORDER BY id")).scalars())


def _store(database, run_id, name, address):
    """Keep the tokens of the image `DIGEST` in a set of the run."""
    codec = Codec(parse_codec(name), width=WIDTH, precision="float32", codebook=None)
    image = StoredVisualTokens(
        values=np.arange(4 * WIDTH, dtype=np.float32).reshape(4, WIDTH),
        n_deepstack=0, grid=(1, 2, 2), tokens=(1, 2, 2), prompt_parts=(),
    )  # fmt: skip
    content = content_hashes((ImagePart(uri="", sha256=DIGEST),)).image
    with database.begin() as connection:
        kept = token_sets.ensure_set(
            connection,
            catalog_id=runs.get_run(connection, run_id).catalog_id,
            vision_fingerprint=SCORER,
            codec=name,
            width=WIDTH,
            precision="float32",
            address=address,
        )
        with writing_shard(f"{address}/1.tokens") as writer:
            place = writer.add(encode_record([image], codec))
            shard = writer.shard(f"{address}/1.tokens")
        new = token_sets.NewTokenRecord(content=content, place=place, n_images=1, n_tokens=4)
        token_sets.write_shard_rows(
            connection, set_id=kept.id, run_id=run_id, name="1.tokens", shard=shard, records=[new]
        )
        connection.execute(
            text("UPDATE run SET token_set_id = :set WHERE id = :run"),
            {"set": kept.id, "run": run_id},
        )


def test_a_query_that_is_an_image_of_the_catalogue_is_read_from_the_store(opened):
    stored, records = opened("none")

    (of_item,) = stored.read("candidate", records["i1"])
    (of_query,) = stored.read("query", records["q1"])

    assert np.array_equal(of_query.values, of_item.values)
    assert of_item.values.any()
    assert stored.read("query", records["q2"]) == (), "another image has to be encoded"


def test_what_only_items_go_through_is_not_shown_in_place_of_a_query(opened):
    stored, records = opened("int8")

    assert len(stored.read("candidate", records["i1"])) == 1
    assert stored.read("query", records["q1"]) == ()
