"""The tokenizer and the chat template of a scorer, as they come with a checkpoint."""

import string
from copy import deepcopy

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from nightshift.models.engine.text import TextEncoder
from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.schema.errors import ModelError
from tests.models.tiny import CHAT_TEMPLATE, corpus


def test_a_tokenizer_that_can_write_no_control_token_as_text_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"[END]": 0, "word": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="[END]")

    with pytest.raises(ModelError, match="cannot write"):
        TextEncoder(tokenizer, "words")


def test_runs_of_text_are_tokenised_as_what_stands_behind_others() -> None:
    """Llama's tokenizer puts a sign before a prompt's first text: control tokens precede all."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trainer = BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=list(string.printable),
        show_progress=False,
    )
    backend.train_from_iterator([*corpus(), "assistant\nTrue"], trainer)
    own = PreTrainedTokenizerFast(tokenizer_object=backend)
    said = "<|im_start|>user\nIs it a red square, True or False?<|im_end|>"
    encoder = TextEncoder(own, "some/model")

    assert encoder.join(encoder.trusted(said)) == own(said)["input_ids"]
    assert own("user")["input_ids"] != encoder.ids("user"), "or it is no test"


def test_a_template_that_begins_answers_with_thoughts_is_refused(qwen: Qwen25VL) -> None:
    processor = deepcopy(qwen._processor)
    thinking = CHAT_TEMPLATE.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
    processor.chat_template = thinking

    with pytest.raises(ModelError, match=r"some/model .* thoughts.*take the Instruct model"):
        Qwen25VL(qwen._model, processor, "some/model")
    processor.chat_template = thinking.replace("<think>\n", "<think>\n\n</think>\n\n")
    assert Qwen25VL(qwen._model, processor, "some/model").turn.tail != qwen.turn.tail
