"""Qrels: which item answers which query: TREC, BEIR or JSON lines, or a field of the query."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace

from nightshift.producers.sources.fields import identity_of
from nightshift.producers.sources.jsonl import parse_object
from nightshift.producers.sources.lines import numbered_lines, opened
from nightshift.producers.sources.rows import BadRow, contained
from nightshift.schema.errors import InputError, NotFoundError
from nightshift.schema.trec_ids import from_trec_id
from nightshift.stores.catalog.catalogs import CheckedRecord
from nightshift.stores.catalog.query_sets import Judgement
from nightshift.stores.files.globs import ListedFile, find_file

__all__ = ["open_judgements", "split_judgements"]

_MAX_RELEVANCE = 2**15 - 1


def open_judgements(address: str) -> Iterator[Judgement | BadRow]:
    """Read a file of judgements.

    `.jsonl` has `query`, `item` and `relevance` (1 if it has none) in each line. A file that begins
    with `query-id`, `corpus-id` and `score`, with tabs between, has these (BEIR). Any other is read
    as TREC qrels, `query 0 item relevance`, with ids as `nightshift results --format trec` writes
    them.

    Raises:
        NotFoundError: Where there is no such file.
    """
    file = find_file(address)
    if file is None:
        raise NotFoundError(f"{address} is a folder; name a file of judgements")
    return contained(file.name, _read(file))


def split_judgements(record: CheckedRecord) -> tuple[CheckedRecord, list[Judgement]]:
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
    is_first = True
    with opened(file.address) as lines:
        for number, line in numbered_lines(lines):
            if line is not None and not line.strip():
                continue
            if is_first and parse is _from_trec and _is_beir_header(line):
                parse, is_first = _from_beir, False
                continue
            is_first = False
            position = f"{file.name}:{number}"
            try:
                yield parse(line)
            except InputError as error:
                message = f"{position}: {error.message}"
                yield BadRow(position=position, reason=error.reason, message=message)


def _is_beir_header(line: bytes | None) -> bool:
    names = (line or b"").decode(errors="replace").lower().replace("_", "-").split("\t")
    return tuple(name.strip(' "\r\n') for name in names) == ("query-id", "corpus-id", "score")


def _from_beir(line: bytes | None) -> Judgement:
    text = (line or b"").decode(errors="surrogateescape").rstrip("\r\n")
    try:
        ((query, item, grade),) = csv.reader([text], delimiter="\t", strict=True)
    except (ValueError, csv.Error) as error:
        raise InputError(
            "the line is no judgement; write query, item and score with tabs between",
            "malformed_qrel",
        ) from error
    return _judgement(query, item, _number(grade))


def _from_trec(line: bytes | None) -> Judgement:
    # White space of other kinds than ASCII's may be part of an id.
    words = [word.decode(errors="surrogateescape") for word in (line or b"").split()]
    try:
        query, _, item, grade = words
    except ValueError as error:
        raise InputError(
            "the line is no judgement; write `query 0 item relevance`", "malformed_qrel"
        ) from error
    return _judgement(from_trec_id(query), from_trec_id(item), _number(grade))


def _from_json(line: bytes | None) -> Judgement:
    fields = parse_object(line)
    return _judgement(fields.get("query"), fields.get("item"), fields.get("relevance", 1))


def _judgement(query: object, item: object, relevance: object) -> Judgement:
    if isinstance(relevance, float) and relevance.is_integer():
        relevance = int(relevance)
    if not isinstance(relevance, int) or abs(relevance) > _MAX_RELEVANCE:
        shown = str(relevance)[:40]
        raise InputError(
            f"the relevance {shown} is no small whole number; write 1 for relevant, 0 for not, or "
            "larger numbers for grades",
            "malformed_qrel",
        )
    try:
        return Judgement(query=identity_of(query), item=identity_of(item), relevance=int(relevance))
    except InputError as error:
        raise InputError(
            f"the query or the item has no usable id: {error.message}", "malformed_qrel"
        ) from error


def _number(word: str) -> object:
    """A grade as a file of text has it: `1`, and `1.0` as some programs write it."""
    try:
        return int(word)
    except ValueError:
        try:
            return float(word)
        except ValueError:
            return word
