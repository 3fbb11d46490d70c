"""The demo's two small byte-level BPE tokenizers: any text goes in, scene words are one token."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from nightshift.demo import prompts
from nightshift.demo.scenes import Split, describe, random_scene

CONTEXT_LENGTH = 32
"""Tokens that the coarse model reads."""

_QWEN_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_COARSE_SPECIALS = ("<|pad|>", "<|startoftext|>", "<|endoftext|>")
_CAPTIONS = 3000
_PROMPT_COPIES = 50
_MAX_VOCABULARY = 1024

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' or 'video' in part %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def scorer_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """The scorer's tokenizer: Qwen's special tokens, labels single, chat template included."""
    core = _train(_QWEN_SPECIALS, _corpus(seed))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=[
            token for token in _QWEN_SPECIALS if token not in ("<|im_end|>", "<|endoftext|>")
        ],
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def coarse_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """The coarse model's tokenizer: frames a text by a start and an end token."""
    core = _train(_COARSE_SPECIALS, _corpus(seed))
    start, end = _COARSE_SPECIALS[1:]
    core.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(token, core.token_to_id(token)) for token in (start, end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=start,
        eos_token=end,
        pad_token=_COARSE_SPECIALS[0],
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of one token."""
    number = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(number, int)
    return number


def _train(specials: tuple[str, ...], corpus: Iterator[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=_MAX_VOCABULARY,
        min_frequency=20,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _corpus(seed: int) -> Iterator[str]:
    rng = Random(f"{seed}:tokenizer")
    for _ in range(_CAPTIONS):
        yield describe(random_scene(rng, Split.TRAIN), rng)
    turn = ("user\n", "assistant\n", "system\nYou are a helpful assistant.")
    for _ in range(_PROMPT_COPIES):
        for prompt in (
            prompts.retllm(""),
            prompts.retllm_pair(),
            prompts.freeret("", ""),
            prompts.indexmllm(),
            prompts.describe_image(),
            turn,
        ):
            yield from prompt
        for label in prompts.LABELS:
            yield label
            yield f" {label}"
