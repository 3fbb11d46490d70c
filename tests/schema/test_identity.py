"""Two things are the same exactly when their contents are."""

import re

from hypothesis import given
from hypothesis import strategies as st

from nightshift.schema.identity import (
    content_hash,
    content_hashes,
    embedding_key,
    fingerprint,
    pair_key,
)
from nightshift.schema.records import ImagePart, TextPart

#: What a UTF-8 source can hold.
unicode = st.text(st.characters(exclude_categories=["Cs"]))
texts = st.builds(TextPart, text=unicode)
images = st.builds(
    ImagePart,
    uri=unicode,
    sha256=st.one_of(st.just(""), st.binary(min_size=32, max_size=32).map(bytes.hex)),
)
part_lists = st.lists(texts | images, max_size=4).map(tuple)
digests = st.binary(min_size=32, max_size=32)
fingerprints = st.binary(min_size=8, max_size=8).map(bytes.hex)


def seen_by_a_model(part):
    """The values that are the same in two equal parts: a read image's address may differ."""
    if isinstance(part, TextPart):
        return ("text", part.text)
    return ("bytes", part.sha256) if part.sha256 else ("address", part.uri)


@given(part_lists, part_lists)
def test_contents_have_one_hash_exactly_when_they_are_the_same(left, right):
    same = [seen_by_a_model(p) for p in left] == [seen_by_a_model(p) for p in right]

    assert (content_hash(left) == content_hash(right)) == same


@given(part_lists)
def test_order_matters(parts):
    palindrome = [seen_by_a_model(p) for p in parts] == [seen_by_a_model(p) for p in parts[::-1]]

    assert (content_hash(parts) == content_hash(parts[::-1])) == palindrome


@given(unicode, unicode)
def test_two_texts_are_not_their_concatenation(first, second):
    joined = (TextPart(text=first + second),)

    assert content_hash((TextPart(text=first), TextPart(text=second))) != content_hash(joined)


@given(unicode)
def test_a_text_is_never_an_image(value):
    assert content_hash((TextPart(text=value),)) != content_hash((ImagePart(uri=value),))


@given(unicode, unicode, digests)
def test_a_read_image_is_its_bytes_wherever_it_lies(here, there, digest):
    first, second = (ImagePart(uri=uri, sha256=digest.hex()) for uri in (here, there))

    assert content_hash((first,)) == content_hash((second,))


@given(part_lists)
def test_a_model_that_sees_one_kind_is_affected_only_by_changes_in_it(parts):
    hashes = content_hashes(parts)
    only_texts = tuple(part for part in parts if isinstance(part, TextPart))
    only_images = tuple(part for part in parts if isinstance(part, ImagePart))

    assert hashes.of(frozenset({"text"})) == (content_hash(only_texts) if only_texts else None)
    assert hashes.of(frozenset({"image"})) == (content_hash(only_images) if only_images else None)
    assert hashes.of(frozenset({"text", "image"})) == content_hash(parts)


@given(unicode, digests, fingerprints)
def test_an_embedding_key_is_plain_hex_whatever_the_id_holds(item_id, content, model):
    assert re.fullmatch("[0-9a-f]{64}", embedding_key(item_id, content, model))


@given(*[st.tuples(unicode, st.binary(), unicode)] * 2)
def test_embedding_keys_differ_when_any_ingredient_does(left, right):
    assert (embedding_key(*left) == embedding_key(*right)) == (left == right)


@given(*[st.tuples(fingerprints, digests, digests)] * 2)
def test_pair_keys_differ_when_scorer_query_or_item_does(left, right):
    assert (pair_key(*left) == pair_key(*right)) == (left == right)


@given(fingerprints, digests, digests)
def test_query_and_item_do_not_trade_places_in_a_pair_key(scorer, query, item):
    assert (pair_key(scorer, query, item) == pair_key(scorer, item, query)) == (query == item)


@given(st.dictionaries(unicode, st.integers() | unicode | st.booleans()))
def test_a_fingerprint_does_not_depend_on_the_order_of_its_facts(facts):
    reversed_facts = dict(reversed(facts.items()))

    assert fingerprint(facts) == fingerprint(reversed_facts)
    assert re.fullmatch("[0-9a-f]{16}", fingerprint(facts))


@given(st.dictionaries(unicode, unicode, min_size=1), st.data())
def test_a_fingerprint_changes_with_any_fact(facts, data):
    key = data.draw(st.sampled_from(sorted(facts)))

    assert fingerprint(facts) != fingerprint({**facts, key: facts[key] + "'"})
