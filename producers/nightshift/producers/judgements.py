"""Qrels: which item answers which query, as TREC lines, JSON Lines, or a field of the query."""

import json
from collections.abc import Iterator
from dataclasses import replace

from nightshift.producers.sources.fields import identity_of
from nightshift.producers.sources.jsonl import parse_object
from nightshift.producers.sources.lines import numbered_lines, opened
from nightshift.producers.sources.rows import BadRow, contained
from nightshift.schema.errors import InputError, NotFoundError
from nightshift.stores.catalogs import NewRecord
from nightshift.stores.listing import ListedFile, find_file
from nightshift.stores.query_sets import Judgement

__all__ = ["open_judgements", "split_judgements"]

_MAX_RELEVANCE = 2**15 - 1


def open_judgements(address: str) -> Iterator[Judgement | BadRow]:
    """Read a file of judgements.

    `.jsonl` has `query`, `item` and `relevance` (1 if it has none) in each line; any other file is
    read as TREC qrels: `query 0 item relevance`.

    Raises:
        NotFoundError: Where there is no such file.
    """
    file = find_file(address)
    if file is None:
        raise NotFoundError(f"{address} is a folder; name a file of judgements")
    return contained(file.name, _read(file))


def split_judgements(record: NewRecord) -> tuple[NewRecord, list[Judgement]]:
    """Take the field `relevant` (item ids) out of a query's metadata.

    Raises:
        InputError: Where it holds anything else.
    """
    if '"relevant"' not in record.metadata:
        return record, []
    metadata = json.loads(record.metadata)
    given = metadata.pop("relevant", None)
    items = given if isinstance(given, list) else [] if given is None else [given]
    judgements = [_judgement(record.external_id, item, 1) for item in items]
    return replace(record, metadata=json.dumps(metadata, ensure_ascii=False)), judgements


def _read(file: ListedFile) -> Iterator[Judgement | BadRow]:
    parse = _from_json if ".jsonl" in file.name or ".ndjson" in file.name else _from_trec
    with opened(file.address) as lines:
        for number, line in numbered_lines(lines):
            if line is not None and not line.strip():
                continue
            position = f"{file.name}:{number}"
            try:
                yield parse(line)
            except InputError as error:
                message = f"{position}: {error.message}"
                yield BadRow(position=position, reason=error.reason, message=message)


def _from_trec(line: bytes | None) -> Judgement:
    words = (line or b"").decode(errors="surrogateescape").split()
    try:
        query, _, item, grade = words
        relevance = int(grade)
    except ValueError as error:
        raise InputError(
            "the line is no judgement; write `query 0 item relevance`", "malformed_qrel"
        ) from error
    return _judgement(query, item, relevance)


def _from_json(line: bytes | None) -> Judgement:
    fields = parse_object(line)
    return _judgement(fields.get("query"), fields.get("item"), fields.get("relevance", 1))


def _judgement(query: object, item: object, relevance: object) -> Judgement:
    if not isinstance(relevance, int) or abs(relevance) > _MAX_RELEVANCE:
        raise InputError("the relevance is no small whole number", "malformed_qrel")
    try:
        return Judgement(query=identity_of(query), item=identity_of(item), relevance=int(relevance))
    except InputError as error:
        raise InputError(
            f"the query or the item has no usable id: {error.message}", "malformed_qrel"
        ) from error
