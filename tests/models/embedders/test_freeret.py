"""FreeRet's embedder on a real model class: the state it takes, and that nothing else moves it."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from nightshift.models.cache import ModelCache
from nightshift.models.checkpoints.describe import (
    describe_embedder,
    describe_embedder_vision,
    describe_scorer,
    describe_vision,
)
from nightshift.models.embedders.freeret import FreeRetEmbedder
from nightshift.models.embedders.protocol import Embedder
from nightshift.models.engine.family import PixelLimits
from nightshift.models.engine.hidden_states import HiddenStates
from nightshift.models.engine.prompt_writer import prepare
from nightshift.models.engine.prompts import PreparedPrompts
from nightshift.models.engine.prompts import embed as embed_prompts
from nightshift.models.engine.protocol import Group
from nightshift.models.engine.visual import encode_images
from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.models.inputs.codecs.codec import Codec, codebook_digest
from nightshift.models.inputs.codecs.product import train
from nightshift.models.inputs.content import ItemContent
from nightshift.models.load import bind_embedder
from nightshift.models.scorers.protocol import PairGroup
from nightshift.schema.errors import InputError, ModelError
from nightshift.schema.params import ScorerParams
from nightshift.scoring.codecs import Quantise
from nightshift.scoring.prompts import Side
from tests.models.stored import codec_of, stored, visual_tokens_of
from tests.models.tiny import random_image

SITES = ("attn_L", "mlp_L_prenorm", "mlp_L_postnorm", "mlp_L-1")
TEXT = ItemContent(texts=("a red square left of a blue circle",))
IMAGE = ItemContent(images=(random_image(1),))
BOTH = ItemContent(
    texts=("grass", "a red square"), images=(random_image(1), random_image(2, (84, 56)))
)
CONTENTS = (TEXT, IMAGE, BOTH)


@pytest.fixture(scope="module")
def embedder(qwen: Qwen25VL, qwen_folder: Path) -> FreeRetEmbedder:
    return bound(qwen, f"freeret:{qwen_folder}@float32")


@pytest.fixture(scope="module")
def prompts(qwen: Qwen25VL) -> PreparedPrompts:
    groups = [
        Group(prefix=(), suffixes=((random_image(1), "What is this?"),)),
        Group(prefix=(), suffixes=(("one word",),)),
    ]
    return prepare(qwen, PixelLimits(), groups)


@pytest.fixture
def last_norms(qwen: Qwen25VL) -> Iterator[dict[str, nn.Module]]:
    """The last norms of the decoder by what reads them, with gains other than one."""
    layer = qwen._model.model.language_model.layers[-1]
    norms = {
        "attention": layer.input_layernorm,
        "feed-forward": layer.post_attention_layernorm,
        "head": qwen.decoder.norm,
    }
    with torch.no_grad():
        for seed, norm in enumerate(norms.values()):
            norm.weight.copy_(torch.rand(64, generator=torch.Generator().manual_seed(seed)))
    yield norms
    with torch.no_grad():
        for norm in norms.values():
            norm.weight.fill_(1)


def bound(family: Qwen25VL, spec: str, codec: Codec | None = None) -> FreeRetEmbedder:
    embedder = bind_embedder(family, describe_embedder(spec), codec)
    assert isinstance(embedder, FreeRetEmbedder)
    return embedder


def vectors(embedder: Embedder, *contents: ItemContent, side: Side = "candidate") -> np.ndarray:
    return embedder.embed(embedder.prepare(contents, side)).vectors


def count_hooks(family: Qwen25VL) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in family._model.modules())


@contextmanager
def kept_inputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """The inputs that a module read in whole forwards."""
    recorded: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: recorded.append(inputs[0].clone()))
    try:
        yield recorded
    finally:
        handle.remove()


@torch.inference_mode()
def test_the_state_plus_feed_forward_and_norm_is_the_model_s_own_last_state(
    qwen: Qwen25VL, prompts: PreparedPrompts
) -> None:
    visual_tokens = encode_images(qwen, prompts.images)
    decoder = qwen.decoder
    assert decoder.feed_forward_norms is not None

    state = HiddenStates(qwen, "attn_L").read(prompts.prompts, visual_tokens)

    after = state + decoder.feed_forwards[-1](decoder.feed_forward_norms[-1](state))
    for row, prompt in enumerate(prompts.prompts):
        complete = qwen.decode(embed_prompts(qwen, [prompt], visual_tokens))[0, -1]
        torch.testing.assert_close(decoder.norm(after[row]), complete, atol=1e-5, rtol=0)
        logits = decoder.norm(after[row]) @ decoder.head_weight.T
        torch.testing.assert_close(logits, complete @ decoder.head_weight.T, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_site_behind_the_norm_is_the_library_s_last_hidden_state(
    qwen: Qwen25VL, qwen_folder: Path
) -> None:
    question = "What is this?"
    content = [{"type": "image", "image": random_image(1)}, {"type": "text", "text": question}]
    inputs = AutoProcessor.from_pretrained(qwen_folder).apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    # A model of its own: asked for hidden states, the library hooks every layer for good.
    library = AutoModelForImageTextToText.from_pretrained(qwen_folder, dtype=torch.float32)(
        **inputs, output_hidden_states=True
    ).hidden_states
    prepared = prepare(
        qwen, PixelLimits(), [Group(prefix=(), suffixes=((random_image(1), question),))]
    )
    visual_tokens = encode_images(qwen, prepared.images)

    for site, expected in (("mlp_L_postnorm", library[-1]), ("mlp_L-1", library[-2])):
        readings = HiddenStates(qwen, site).read(prepared.prompts, visual_tokens)
        torch.testing.assert_close(readings[0], expected[0, -1], atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("site", SITES)
def test_stopping_early_gives_the_state_of_a_whole_forward(
    qwen: Qwen25VL, prompts: PreparedPrompts, site: str
) -> None:
    decoder = qwen.decoder
    assert decoder.feed_forward_norms is not None
    modules = {
        "attn_L": decoder.feed_forward_norms[-1],
        "mlp_L_prenorm": decoder.norm,
        "mlp_L-1": decoder.layers[-1],
    }
    visual_tokens = encode_images(qwen, prompts.images)
    readings = HiddenStates(qwen, site).read(prompts.prompts[:1], visual_tokens)

    with kept_inputs(modules.get(site, decoder.norm)) as inputs:
        states = qwen.decode(embed_prompts(qwen, prompts.prompts[:1], visual_tokens))

    complete = states if site == "mlp_L_postnorm" else inputs[0]
    assert torch.equal(readings[0], complete[0, -1])


@torch.inference_mode()
def test_nothing_behind_the_state_is_computed_and_no_hook_stays(
    qwen: Qwen25VL, prompts: PreparedPrompts
) -> None:
    decoder = qwen.decoder
    visual_tokens = encode_images(qwen, prompts.images)
    hooks = count_hooks(qwen)
    with kept_inputs(decoder.feed_forwards[-1]) as read, kept_inputs(decoder.norm) as normed:
        HiddenStates(qwen, "attn_L").read(prompts.prompts, visual_tokens)

    assert (read, normed) == ([], [])
    assert count_hooks(qwen) == hooks


def test_a_batch_embeds_as_each_content_alone(embedder: FreeRetEmbedder) -> None:
    together = vectors(embedder, *CONTENTS, *reversed(CONTENTS))

    separate = np.concatenate(
        [vectors(embedder, entry) for entry in (*CONTENTS, *reversed(CONTENTS))]
    )
    np.testing.assert_allclose(together, separate, atol=1e-5)


def test_vectors_are_of_length_one_and_their_cosines_within_one(embedder: FreeRetEmbedder) -> None:
    results = vectors(embedder, *CONTENTS)

    assert results.dtype == np.float32
    assert results.shape == (3, embedder.dim)
    np.testing.assert_allclose(np.linalg.norm(results, axis=1), 1, atol=1e-6)
    assert np.abs(results @ results.T).max() <= 1 + 1e-6


def test_duplicates_embed_alike_and_every_part_of_a_content_counts(
    embedder: FreeRetEmbedder,
) -> None:
    fewer = (
        ItemContent(texts=BOTH.texts, images=BOTH.images[:1]),
        ItemContent(texts=BOTH.texts[:1], images=BOTH.images),
        ItemContent(texts=BOTH.texts, images=BOTH.images[::-1]),
    )
    results = vectors(embedder, BOTH, BOTH, *fewer)

    np.testing.assert_array_equal(results[0], results[1])
    assert all(np.abs(results[0] - other).max() > 1e-3 for other in results[2:])


def test_a_query_is_asked_about_otherwise_than_an_item(qwen: Qwen25VL, qwen_folder: Path) -> None:
    caption = bound(qwen, f"freeret:{qwen_folder}?task=news@float32")

    as_query, as_item = vectors(caption, TEXT, side="query"), vectors(caption, TEXT)

    assert np.abs(as_query - as_item).max() > 1e-3


def test_an_empty_content_and_one_too_long_are_refused_by_place(
    embedder: FreeRetEmbedder,
) -> None:
    with pytest.raises(InputError) as empty:
        embedder.prepare([TEXT, ItemContent()], "candidate")
    with pytest.raises(InputError) as long:
        embedder.prepare([TEXT, TEXT, ItemContent(texts=("grass " * 600,))], "candidate")

    assert (empty.value.reason, empty.value.subject_id) == ("empty_content", "1")
    assert (long.value.reason, long.value.subject_id) == ("prompt_too_long", "2")


def test_site_prompt_and_task_each_change_vectors_and_fingerprint(
    qwen: Qwen25VL, qwen_folder: Path
) -> None:
    options = [f"site={site}" for site in SITES[1:]]
    options += [f"prompt={prompt}" for prompt in ("e5v", "grounding", "grounding_noise")]
    options += [f"task={task}" for task in ("caption", "news", "category", "product")]
    specs = [f"freeret:{qwen_folder}@float32"]
    specs += [f"freeret:{qwen_folder}?{option}@float32" for option in options]

    embedders = [bound(qwen, spec) for spec in specs]

    assert len({entry.fingerprint for entry in embedders}) == len(specs)
    results = [vectors(entry, TEXT)[0] for entry in embedders]
    # The two sites behind the feed-forward differ by a norm, whose weights here are all one.
    assert all(np.abs(results[0] - other).max() > 1e-4 for other in results[1:])


@torch.inference_mode()
def test_a_norm_before_the_cosine_is_the_model_s_own_with_its_gains(
    qwen: Qwen25VL, qwen_folder: Path, prompts: PreparedPrompts, last_norms: dict[str, nn.Module]
) -> None:
    visual_tokens = encode_images(qwen, prompts.images)

    for site, norm, module in (
        ("attn_L", "rms", last_norms["feed-forward"]),
        ("attn_L", "final_norm", last_norms["head"]),
        ("mlp_L-1", "rms", last_norms["attention"]),
        ("mlp_L_prenorm", "rms", last_norms["head"]),
    ):
        bare = HiddenStates(qwen, site).read(prompts.prompts, visual_tokens)
        scaled = bare / bare.square().mean(dim=1, keepdim=True).sqrt()
        readings = HiddenStates(qwen, site, norm).read(prompts.prompts, visual_tokens)
        torch.testing.assert_close(readings, scaled * module.weight, atol=1e-4, rtol=1e-4)

    normed = HiddenStates(qwen, "mlp_L_prenorm", "final_norm").read(prompts.prompts, visual_tokens)
    library = HiddenStates(qwen, "mlp_L_postnorm").read(prompts.prompts, visual_tokens)
    torch.testing.assert_close(normed, library, atol=1e-5, rtol=0)
    specs = [f"freeret:{qwen_folder}{norm}@float32" for norm in ("", "?norm=rms")]
    plain, rms = (bound(qwen, spec) for spec in specs)
    assert plain.fingerprint != rms.fingerprint
    assert np.abs(vectors(plain, TEXT) - vectors(rms, TEXT)).max() > 1e-3


def test_stored_tokens_give_the_vectors_of_the_pixels_bit_for_bit(
    qwen: Qwen25VL, qwen_folder: Path, embedder: FreeRetEmbedder
) -> None:
    tower = describe_vision(f"hf:{qwen_folder}@float32")

    later = [stored(qwen, tower, entry, codec_of("none")) for entry in (IMAGE, BOTH)]

    for side in ("candidate", "query"):
        from_pixels = vectors(embedder, IMAGE, BOTH, TEXT, side=side)
        assert vectors(embedder, *later, TEXT, side=side).tobytes() == from_pixels.tobytes()
        mixed = vectors(embedder, later[0], BOTH, TEXT, side=side)
        assert mixed.tobytes() == from_pixels.tobytes()


def test_a_codec_is_for_items_and_the_same_for_stored_tokens_and_for_pixels(
    qwen: Qwen25VL, qwen_folder: Path, embedder: FreeRetEmbedder
) -> None:
    spec = f"freeret:{qwen_folder}?codec=pool2+int8@float32"
    tower = describe_embedder_vision(spec)
    assert tower is not None
    codec = codec_of("pool2+int8")
    coded = bound(qwen, spec, codec)

    as_item = vectors(coded, IMAGE)

    assert coded.fingerprint != embedder.fingerprint
    assert vectors(coded, stored(qwen, tower, IMAGE, codec)).tobytes() == as_item.tobytes()
    assert np.abs(as_item - vectors(embedder, IMAGE)).max() > 1e-4
    as_query = vectors(coded, IMAGE, side="query")
    assert as_query.tobytes() == vectors(embedder, IMAGE, side="query").tobytes()
    with pytest.raises(ModelError, match="nightshift index build"):
        bound(qwen, spec)


def test_a_trained_codebook_is_read_alike_from_tokens_and_pixels_and_names_the_embedder(
    qwen: Qwen25VL, qwen_folder: Path, embedder: FreeRetEmbedder
) -> None:
    tower = describe_vision(f"hf:{qwen_folder}@float32")
    results = []
    for number in (4, 5):
        ((sample,),) = visual_tokens_of(
            qwen, tower, ItemContent(images=(random_image(number, (112, 112)),))
        )
        book = train(Quantise(kind="pq", parts=4, bits=2), sample.values).to_bytes()
        codec = codec_of("pq(4,2)", book)
        options = f"?codec=pq(4,2)&codebook={codebook_digest(book)}"
        coded = bound(qwen, f"freeret:{qwen_folder}{options}@float32", codec)
        from_pixels = vectors(coded, IMAGE, BOTH)
        later = [stored(qwen, tower, result, codec) for result in (IMAGE, BOTH)]
        assert vectors(coded, *later).tobytes() == from_pixels.tobytes()
        results.append((coded.fingerprint, from_pixels))
    results.append((embedder.fingerprint, vectors(embedder, IMAGE, BOTH)))

    assert len({name for name, _ in results}) == 3
    for (_, result), (_, other) in combinations(results, 2):
        assert np.abs(result - other).max() > 1e-4


def test_the_vision_tower_is_that_of_scorers_with_the_same_pixel_limits(qwen_folder: Path) -> None:
    def tower(options: str) -> object:
        spec = f"freeret:{qwen_folder}{options}@float32"
        facts = describe_embedder_vision(spec)
        assert facts is not None
        assert describe_embedder(spec).card["vision"] == facts.fingerprint
        return facts

    scorer = f"hf:{qwen_folder}@float32"
    assert tower("?task=news") == describe_vision(scorer)
    limited = describe_vision(scorer, min_pixels=3136, max_pixels=6272)
    assert tower("?min_pixels=3136&max_pixels=6272") == limited


def test_a_layer_without_a_state_between_its_halves_is_refused(
    qwen: Qwen25VL, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(qwen, "decoder", replace(qwen.decoder, feed_forward_norms=None))

    with pytest.raises(ModelError, match="mlp_L-1"):
        HiddenStates(qwen, "attn_L")
    HiddenStates(qwen, "mlp_L-1")


def test_embedder_and_scorers_of_a_model_share_one_copy_of_its_weights(
    qwen_folder: Path, clip_folder: Path
) -> None:
    cache = ModelCache(device="cpu")
    model = describe_scorer(f"hf:{qwen_folder}@float32", ScorerParams())
    freeret = ScorerParams(method="freeret", framing="freeret")
    other = describe_scorer(f"hf:{qwen_folder}@float32", freeret)
    spec = describe_embedder(f"freeret:{qwen_folder}@float32")

    cache.embedder(spec.spec, spec.fingerprint)
    family = cache._family
    for params, facts in ((ScorerParams(), model), (freeret, other)):
        scorer = cache.scorer(facts.spec, params, facts.fingerprint)
        (group,) = scorer.score(
            scorer.prepare([PairGroup(shared_side="query", shared=TEXT, others=(IMAGE,))])
        )
        assert np.isfinite(group[0].margin)
        assert cache.loaded == facts.fingerprint
    assert cache._family is family

    clip = describe_embedder(f"hf:{clip_folder}")
    cache.embedder(clip.spec, clip.fingerprint)
    assert cache._family is None


def test_weights_that_are_not_those_of_the_plan_are_refused_before_they_are_loaded(
    qwen_folder: Path,
) -> None:
    cache = ModelCache(device="cpu")

    with pytest.raises(ModelError, match="planned with deadbeef"):
        cache.embedder(f"freeret:{qwen_folder}@float32", "deadbeef")

    assert cache._family is None
