"""A text is a text, also to tokenizers that hold their control tokens as ordinary pieces."""

import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from nightshift.models.embedders.plain_text import PlainText
from nightshift.schema.errors import InputError

_PIECES = ("<pad>", "</s>", "<unk>", "▁", "▁a", "a", "s", "/", "<", ">", "d", "p")


def unigram(*without: str) -> PreTrainedTokenizerFast:
    """As T5 has it: folds look-alikes and case, and knows `</s>` as a piece that costs nothing."""
    pieces = [
        (piece, 0.0 if i < 3 else -2.0) for i, piece in enumerate(_PIECES) if piece not in without
    ]
    backend = Tokenizer(Unigram(pieces, unk_id=2))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


@pytest.mark.parametrize("text", ["a </s> a", "a</s>", "</S>", "＜/s＞", "<pad>", "</s></s>"])
def test_a_control_token_is_broken_up(text: str):
    tokenizer = unigram()
    plain = PlainText(tokenizer)
    assert {0, 1} & set(tokenizer(text, add_special_tokens=False)["input_ids"]), "or it is no test"

    (kept,) = plain([text])

    assert not {0, 1} & set(tokenizer(kept, add_special_tokens=False)["input_ids"])


def test_every_other_text_stays_as_it_is():
    texts = ["a a", "a < s > / d", "ｆｕｌｌ width", "", "猫"]

    assert PlainText(unigram())(texts) == texts


def test_signs_that_the_tokenizer_does_not_know_are_not_taken_for_control():
    (kept,) = PlainText(unigram("<", ">", "/"))(["a </s> a"])

    assert kept == "a < /s> a"


def test_a_token_of_one_sign_cannot_be_broken_up_and_is_refused_by_place():
    tokenizer = unigram()
    tokenizer.add_special_tokens({"sep_token": "d"})

    with pytest.raises(InputError) as caught:
        PlainText(tokenizer)(["a", "a d"])

    assert (caught.value.reason, caught.value.subject_id) == ("control_token", "1")
