"""Tiny random models of every family, in the layout of real checkpoints."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoProcessor,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
)

from nightshift.models import families
from nightshift.models.checkpoints.describe import describe_scorer
from nightshift.schema.params import ScorerParams
from tests.models.tiny import CHAT_TEMPLATE, SPECIALS, corpus, enliven, qwen_tokenizer, save_qwen

# As the published checkpoints have them, in what matters for one turn.
_QWEN3_TEMPLATE = CHAT_TEMPLATE.partition("<|im_end|>\n")[2]
_LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}<image>"
    "{% endfor %}{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\n' + part['text'] }}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_IDEFICS_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
#: Of a mixture, two of which answer each token.
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_SIDE = 28  # of a tile, which takes four visual tokens


def save_family(
    name: str, folder: Path, *, n_layers: int = 6, text_config: dict[str, Any] | None = None
) -> Path:
    """A random model of a family, 64 wide, with its processor.

    Args:
        name: transformers' `model_type`.
        folder: To write it to.
        n_layers: Of the language model.
        text_config: Of another language model inside; InternVL only.
    """
    torch.manual_seed(0)
    if name == "qwen2_5_vl":
        return save_qwen(folder, n_layers=n_layers)
    model, processor = (
        _internvl(n_layers, text_config) if text_config else _BUILDERS[name](n_layers)
    )
    enliven(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def loaded(name: str, folder: Path, precision: str = "float32") -> Any:
    """The `Family` of that name in a folder, on the CPU."""
    facts = describe_scorer(f"hf:{folder}@{precision}", ScorerParams())
    return families.load(facts, torch.device("cpu"))


@cache
def own_processor(folder: Path) -> Any:
    """The checkpoint's own."""
    # SmolVLM's own asks for one package more; `test_families` compares its strings.
    kind = Idefics3Processor if folder.name == "smolvlm" else AutoProcessor
    return kind.from_pretrained(folder)


def upstream(folder: Path, pieces: Sequence[Any]) -> Any:
    """The inputs of a prompt by the checkpoint's own processor."""
    content: list[dict[str, Any]] = []
    for is_text, run in groupby(pieces, key=lambda piece: isinstance(piece, str)):
        if is_text:
            content.append({"type": "text", "text": "".join(map(str, run))})
        else:
            content += [{"type": "image", "image": image} for image in run]
    return own_processor(folder).apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )


def _qwen2_vl(n_layers: int) -> tuple[Any, Any]:
    tokenizer = qwen_tokenizer()
    config = Qwen2VLConfig(
        text_config={**_text(tokenizer, n_layers), "rope_parameters": _MROPE},
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "mlp_ratio": 2,
        },
        **_qwen_ids(tokenizer),
    )
    sizes = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=sizes),
        video_processor=Qwen2VLVideoProcessor(size=sizes),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )
    return Qwen2VLForConditionalGeneration(config), processor


def _qwen3_vl(n_layers: int) -> tuple[Any, Any]:
    config, processor = _qwen3(Qwen3VLConfig, n_layers, {})
    return Qwen3VLForConditionalGeneration(config), processor


def _qwen3_vl_moe(n_layers: int) -> tuple[Any, Any]:
    config, processor = _qwen3(Qwen3VLMoeConfig, n_layers, EXPERTS)
    return Qwen3VLMoeForConditionalGeneration(config), processor


def _qwen3(
    config_class: Callable[..., Any], n_layers: int, more: dict[str, Any]
) -> tuple[Any, Any]:
    tokenizer = qwen_tokenizer()
    text = {**_text(tokenizer, n_layers), "head_dim": 16, "rope_parameters": _MROPE, **more}
    config = config_class(
        text_config=text,
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        **_qwen_ids(tokenizer),
    )
    sizes = {"shortest_edge": 32 * 32, "longest_edge": 128 * 128}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=sizes, patch_size=16),
        video_processor=Qwen3VLVideoProcessor(size=sizes),
        tokenizer=tokenizer,
        chat_template=_QWEN3_TEMPLATE,
    )
    return config, processor


def _llava_onevision(n_layers: int) -> tuple[Any, Any]:
    tokenizer = qwen_tokenizer((*_CHAT, "<image>", "<video>"), _LLAVA_TEMPLATE)
    grids = [[28, 28], [28, 56], [56, 28], [56, 56], [28, 84]]
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer, n_layers)},
        vision_config=_siglip(patch_size=14),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grids,
    )
    size = {"height": _SIDE, "width": _SIDE}
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=grids),
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        tokenizer=tokenizer,
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=_LLAVA_TEMPLATE,
    )
    return LlavaOnevisionForConditionalGeneration(config), processor


def _internvl(n_layers: int, text_config: dict[str, Any] | None = None) -> tuple[Any, Any]:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = qwen_tokenizer(
        (*_CHAT, *named.values()), _INTERNVL_TEMPLATE, extra_special_tokens=named
    )
    config = InternVLConfig(
        text_config={**_text(tokenizer, n_layers), **(text_config or _INTERNVL_TEXT)},
        vision_config={**_VISION, "image_size": [_SIDE, _SIDE], "patch_size": [7, 7]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size={"height": _SIDE, "width": _SIDE}, min_patches=1, max_patches=4
        ),
        video_processor=InternVLVideoProcessor(size={"height": _SIDE, "width": _SIDE}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=_INTERNVL_TEMPLATE,
    )
    return InternVLForConditionalGeneration(config), processor


def _idefics3(n_layers: int) -> tuple[Any, Any]:
    config, processor = _idefics(Idefics3Config, Idefics3ImageProcessor, n_layers)
    return Idefics3ForConditionalGeneration(config), processor


def _smolvlm(n_layers: int) -> tuple[Any, Any]:
    config, processor = _idefics(SmolVLMConfig, SmolVLMImageProcessor, n_layers)
    return SmolVLMForConditionalGeneration(config), processor


def _idefics(
    config_class: Callable[..., Any], images_class: Callable[..., Any], n_layers: int
) -> tuple[Any, Any]:
    places = [f"<row_{row}_col_{col}>" for row in range(1, 4) for col in range(1, 4)]
    images = ("<fake_token_around_image>", "<image>", "<global-img>", *places)
    tokenizer = qwen_tokenizer(
        (*_CHAT, "<end_of_utterance>", *images),
        _IDEFICS_TEMPLATE,
        eos_token="<end_of_utterance>",
    )
    config = config_class(
        text_config={"model_type": "llama", **_text(tokenizer, n_layers)},
        vision_config={**_VISION, "image_size": _SIDE, "patch_size": 7},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = Idefics3Processor(
        image_processor=images_class(
            size={"longest_edge": 3 * _SIDE}, max_image_size={"longest_edge": _SIDE}
        ),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=_IDEFICS_TEMPLATE,
    )
    return config, processor


def _gemma3(n_layers: int) -> tuple[Any, Any]:
    tokenizer = _gemma_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = Gemma3Config(
        text_config={
            **_text(tokenizer, n_layers),
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 12,
            "layer_types": ["sliding_attention", "full_attention"] * (n_layers // 2),
            "bos_token_id": ids("<bos>"),
        },
        vision_config=_siglip(patch_size=7),
        mm_tokens_per_image=4,
        image_token_index=ids("<image_soft_token>"),
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": _SIDE, "width": _SIDE}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=_GEMMA_TEMPLATE,
    )
    return Gemma3ForConditionalGeneration(config), processor


def _gemma_tokenizer() -> PreTrainedTokenizerFast:
    """Sentencepiece's way: spaces are letters, and runs of line breaks are tokens of their own."""
    named = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    turns = ["<start_of_turn>", "<end_of_turn>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Replace("▁", " ")
    trainer = BpeTrainer(
        vocab_size=700,
        special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", *turns, *named.values()],
        initial_alphabet=[chr(number) for number in range(33, 127)] + ["▁", "\n"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([word for text in corpus() for word in text.split(" ")], trainer)
    tokenizer.add_tokens([AddedToken("\n" * n, normalized=False) for n in (2, 3, 4)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        additional_special_tokens=turns,
        extra_special_tokens=named,
        chat_template=_GEMMA_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _text(tokenizer: PreTrainedTokenizerFast, n_layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }


def _siglip(patch_size: int) -> dict[str, Any]:
    return {
        **_VISION,
        "model_type": "siglip_vision_model",
        "image_size": _SIDE,
        "patch_size": patch_size,
        "vision_use_head": False,
    }


def _qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    _, _, _, start, end, image, video = map(tokenizer.convert_tokens_to_ids, SPECIALS)
    return {
        "vision_start_token_id": start,
        "vision_end_token_id": end,
        "image_token_id": image,
        "video_token_id": video,
    }


# As published: the frequencies change beyond the longest prompt only.
_INTERNVL_TEXT = {
    "model_type": "qwen2",
    "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0},
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_MROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
_BUILDERS: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "gemma3": _gemma3,
    "idefics3": _idefics3,
    "internvl": _internvl,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen2_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_vl_moe": _qwen3_vl_moe,
    "smolvlm": _smolvlm,
}
