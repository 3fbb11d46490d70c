"""Shards: whole or not there at all, and a damaged one is named."""

import hashlib
import os
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshift.schema.errors import InputError, ServiceUnavailableError
from nightshift.stores.tokens.shards import (
    Place,
    Shard,
    read_records,
    verify_shard,
    writing_shard,
)

RECORDS = [b"first", b"", b"a longer third one" * 1000, b"\x00\xff"]


def write(address: str, records: list[bytes] = RECORDS) -> tuple[Shard, list[Place]]:
    with writing_shard(address) as writer:
        places = [writer.add(record) for record in records]
        shard = writer.shard(address)
    return shard, places


@pytest.fixture(params=["disk", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "tokens" / "1.shard")
    return f"memory://{tmp_path.name}/tokens/1.shard"


def test_records_come_back_in_the_order_asked_for(address: str):
    shard, places = write(address)

    assert read_records(address, places[::-1]) == RECORDS[::-1]
    verify_shard(shard)
    assert shard.n_bytes == sum(map(len, RECORDS))


@settings(max_examples=30)
@given(records=st.lists(st.binary(max_size=50), max_size=8), data=st.data())
def test_any_records_come_back(tmp_path_factory: pytest.TempPathFactory, records, data):
    address = str(tmp_path_factory.mktemp("shards") / "x.shard")
    _, places = write(address, records)
    wanted = data.draw(st.lists(st.sampled_from(range(len(records))))) if records else []

    assert read_records(address, [places[i] for i in wanted]) == [records[i] for i in wanted]


@pytest.mark.parametrize("n_bytes", [0, 3, 17_000])
def test_a_torn_shard_is_named_and_what_is_before_the_tear_still_read(tmp_path: Path, n_bytes: int):
    address = str(tmp_path / "1.shard")
    shard, places = write(address)
    os.truncate(address, n_bytes)

    records = read_records(address, places)

    complete = [i for i, place in enumerate(places) if place.offset + place.n_bytes <= n_bytes]
    for number, record in enumerate(records):
        if number in complete or not RECORDS[number]:
            assert record == RECORDS[number]
        else:
            assert isinstance(record, InputError)
            assert address in str(record)
            assert record.reason == "shard_corrupt"
    with pytest.raises(InputError, match=r"1\.shard has .* bytes where 18,007"):
        verify_shard(shard)


def test_one_changed_byte_costs_one_record(tmp_path: Path):
    address = str(tmp_path / "1.shard")
    shard, places = write(address)
    content = bytearray(Path(address).read_bytes())
    content[2] ^= 1
    Path(address).write_bytes(content)

    first, *others = read_records(address, places)

    assert isinstance(first, InputError)
    assert others == RECORDS[1:]
    with pytest.raises(InputError, match="other bytes"):
        verify_shard(shard)


def test_a_shard_that_is_gone_is_named(address: str):
    shard, places = write(address)
    if address.startswith("memory:"):
        fsspec.filesystem("memory").rm(address)
    else:
        Path(address).unlink()

    records = read_records(address, places)

    assert all(isinstance(result, InputError) and address in str(result) for result in records)
    with pytest.raises(InputError, match="there is no"):
        verify_shard(shard)


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path):
    def half_a_shard() -> None:
        with writing_shard(str(tmp_path / "1.shard")) as writer:
            writer.add(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_a_shard()

    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_outage(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ServiceUnavailableError, match="cannot be written"):
        write(str(tmp_path / "file" / "1.shard"))


def test_the_digests_are_of_the_bytes(tmp_path: Path):
    shard, (place, *_) = write(str(tmp_path / "1.shard"))
    assert shard.sha256 == hashlib.sha256(b"".join(RECORDS)).digest()
    assert place.digest == hashlib.blake2b(b"first", digest_size=16).digest()
