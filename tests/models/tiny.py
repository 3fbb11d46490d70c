"""Tiny random models, built locally in the layout of real checkpoints."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from nightshift.scoring.methods.registry import FRAMINGS

# Qwen2.5's own split of text: a leading mark joins the letters behind it ("<a" is one piece).
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def random_image(seed: int, size: tuple[int, int] = (56, 56)) -> Image.Image:
    """A random image of (width, height)."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def qwen_tokenizer(
    specials: Sequence[str] = SPECIALS, chat_template: str = CHAT_TEMPLATE, **names: object
) -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen's split; the labels are one token each.

    Args:
        specials: Control tokens.
        chat_template: Comes along.
        **names: What the library calls some of them, and other options of its tokenizers.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=700,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", **names}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=[t for t in specials if t not in named.values()],
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
        **named,
    )


def save_qwen(folder: Path, *, n_layers: int = 18, seed: int = 0) -> Path:
    """A random Qwen2.5-VL, 64 wide, with its processor."""
    torch.manual_seed(seed)
    tokenizer = qwen_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": n_layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [2, 3, 3],
            },
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 14,
            "out_hidden_size": 64,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        bos_token_id=None,
        eos_token_id=ids("<|im_end|>"),
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    enliven(model)
    model.save_pretrained(folder)
    sizes = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=sizes),
        video_processor=Qwen2VLVideoProcessor(size=sizes),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    return folder


def enliven(model: torch.nn.Module) -> None:
    """Give it weights that tell things apart: the library's initial ones hardly do."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.15 if "embed_tokens" in name else 0.1)


def save_open_clip(folder: Path, *, seed: int = 0) -> Path:
    """A random open_clip model in a local directory."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    config = {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 32,
            "layers": 2,
            "width": 32,
            "patch_size": 8,
            "head_width": 16,
        },
        "text_cfg": {
            "context_length": 24,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}})
    )
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def save_clip(folder: Path, *, seed: int = 0) -> Path:
    """A random CLIP of transformers."""
    torch.manual_seed(seed)
    tokenizer = _clip_tokenizer()
    config = CLIPConfig(
        text_config={
            **_TEXT,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config=_VISION,
        projection_dim=24,
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


def save_siglip(folder: Path, *, seed: int = 0) -> Path:
    """A random SigLIP of transformers."""
    torch.manual_seed(seed)
    tokenizer = _clip_tokenizer()
    config = SiglipConfig(
        text_config={**_TEXT, "vocab_size": len(tokenizer), "projection_size": 32},
        vision_config=_VISION,
    )
    SiglipModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 24,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def _clip_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    start, end = "<|startoftext|>", "<|endoftext|>"
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=[start, end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=start, eos_token=end, pad_token=end
    )


def corpus() -> list[str]:
    """The texts that tokenizers of the tests are trained on."""
    words = ("True", "False", "Yes", "No", "Right", "Wrong", "A", "B", "0", "1")
    labels = [spaced + word for word in words for spaced in ("", " ")]
    sentences = [
        "a small red square left of a large blue circle on grass",
        "system\nuser\nassistant\n",
    ]
    # Framings share many of their words: each part counts once.
    prompts = dict.fromkeys(
        part
        for framing in FRAMINGS.values()
        for template in framing.templates.values()
        for part in (*template.prefix, *template.suffix)
        if isinstance(part, str)
    )
    return (labels + sentences * 5 + list(prompts)) * 20


def _regex(pattern: str) -> "object":
    from tokenizers import Regex

    return Regex(pattern)
