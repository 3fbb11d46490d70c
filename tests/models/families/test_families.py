"""Every family: the upstream library's numbers, packed or not, enhanced or not."""

import logging
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nightshift.models import vision
from nightshift.models.checkpoints.describe import FAMILIES, describe_vision
from nightshift.models.engine.enhancement import trigger_layers
from nightshift.models.engine.family import Family, PixelLimits, VisualTokens
from nightshift.models.engine.generation.generate import generate
from nightshift.models.engine.hidden_states import HiddenStates
from nightshift.models.engine.packed.engine import PackedEngine
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.prompts import PreparedPrompts
from nightshift.models.engine.protocol import Engine, Group, Piece
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.records import decode_record, encode_record
from nightshift.models.inputs.codecs.tokens import CodedImage
from nightshift.models.inputs.content import ItemContent
from nightshift.models.load import load_scorer
from nightshift.models.scorers.binding import bind, engine_for
from nightshift.models.scorers.protocol import PairGroup
from nightshift.models.scorers.rendering import pieces
from nightshift.schema.errors import ModelError
from nightshift.schema.params import EnhancementParams, ScorerParams
from nightshift.scoring.codecs import parse_codec
from nightshift.scoring.methods.registry import FRAMINGS
from nightshift.scoring.prompts import Content
from tests.models.readings import OFF, ON, assert_same, between, numbers, score
from tests.models.tiny import random_image
from tests.models.tiny_families import EXPERTS, loaded, own_processor, save_family, upstream

ASK = "Does the image match the caption:"
#: Families whose templates put a space before an answer, and whose tokenizers keep a digit apart
#: from it.
SPACED = {"idefics3", "smolvlm"}


def as_suffixes(*texts: str) -> tuple[tuple[str, ...], ...]:
    return tuple((f" <{text}>? True or False",) for text in texts)


IMAGE_GROUPS = [
    Group(
        prefix=(random_image(seed, size), ASK),
        suffixes=as_suffixes("a red square", "x", "blue " * 9),
    )
    for seed, size in ((1, (56, 56)), (2, (90, 40)))
]
TEXT_ONLY = Group(prefix=("Is red blue?",), suffixes=as_suffixes("yes", "no, a red square"))
COMPOSED = Group(
    prefix=("Query image", random_image(2, (90, 40)), "Candidate image"),
    suffixes=((random_image(1), "same?"), (random_image(3, (20, 60)), "Is it the same?")),
)
MANY_SUFFIXES = Group(
    prefix=(random_image(5), ASK),
    suffixes=as_suffixes(*(f"{'red ' * (i % 7)}{i}" for i in range(12))),
)
EVERYTHING = [*IMAGE_GROUPS, TEXT_ONLY, COMPOSED, MANY_SUFFIXES]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of each family in turn."""
    return save_family(request.param, tmp_path_factory.mktemp("x") / request.param)


@pytest.fixture(scope="module")
def family(folder: Path) -> Any:
    return loaded(folder.name, folder)


@pytest.fixture(scope="module")
def engine(family: Family) -> Engine:
    return engine_for(family, PixelLimits())


@pytest.fixture(scope="module")
def plain(family: Family) -> PlainEngine:
    return PlainEngine(family, PixelLimits())


@pytest.fixture
def packed(family: Family) -> PackedEngine:
    if family.layer_ops is None:
        pytest.skip(f"cannot be packed: {family.report.unpacked_reason}")
    return PackedEngine(family, family.layer_ops, PixelLimits())


def is_image(piece: Piece) -> bool:
    return not isinstance(piece, str)


def pieces_of(group: Group) -> list[Piece]:
    return [*group.prefix, *(piece for suffix in group.suffixes for piece in suffix)]


def comparable(folder: Path) -> Iterator[Group]:
    """Groups that upstream writes in the order in which they are read."""
    yield from (*IMAGE_GROUPS, TEXT_ONLY)
    # LLaVA-OneVision's template moves images to the front.
    if folder.name != "llava_onevision":
        yield COMPOSED


# As upstream.


def test_prompts_are_tokenised_as_the_checkpoints_own_processor_does(
    engine: Engine, folder: Path
) -> None:
    for group in comparable(folder):
        prepared = engine.prepare([group])
        for prompt, suffix in zip(prepared.prompts, group.suffixes, strict=True):
            theirs = upstream(folder, (*group.prefix, *suffix))["input_ids"][0]
            assert prompt.ids.tolist() == theirs.tolist()


def test_readings_are_those_of_the_upstream_forward(
    engine: Engine, family: Any, folder: Path
) -> None:
    ids = [family.text.label(label) for label in ("True", "False")]
    for group in comparable(folder):
        for suffix, reading in zip(
            group.suffixes, numbers(score(engine, [group], OFF)), strict=True
        ):
            with torch.no_grad():
                inputs = upstream(folder, (*group.prefix, *suffix))
                logits = family._model(**inputs).logits[0, -1]
            p = logits.double().softmax(0)
            entropy = float(-(p * p.log()).sum())
            assert reading == pytest.approx(
                [*logits[ids].tolist(), float(logits.logsumexp(0)), entropy], abs=1e-5
            )


def test_a_label_is_the_token_that_an_answer_begins_with(family: Any, folder: Path) -> None:
    answer = " True" if folder.name in SPACED else "True"

    assert [family.text.label("True")] == family.text.ids(answer)


def test_every_framing_s_labels_are_single_tokens_where_prompts_end(
    family: Any, folder: Path
) -> None:
    for words in {rule.labels.words for rule in FRAMINGS.values()}:
        requested = family.with_labels(words)

        if words[0].isdigit() and folder.name in SPACED:
            assert requested.turn.tail == (*family.turn.tail, *family.text.ids(" "))
            answers = words
        else:
            assert requested is family
            answers = tuple(family.turn.answer_lead + word for word in words)
        assert [[requested.text.label(word)] for word in words] == list(
            map(family.text.ids, answers)
        )


def test_a_label_of_several_tokens_is_refused_with_what_it_takes_either_way(family: Any) -> None:
    lead = family.turn.answer_lead
    counts = [
        len(family.text.ids(entry)) for entry in (f"{lead}Truthfully", " Truthfully"[len(lead) :])
    ]

    with pytest.raises(ModelError) as refused:
        family.with_labels(("True", "Truthfully"))

    reported = refused.value.message
    assert f"{lead + 'Truthfully'!r} takes {counts[0]} tokens of {family.text._name}" in reported
    assert f"{' Truthfully'[len(lead) :]!r} takes {counts[1]})" in reported


def test_a_control_token_in_a_caption_is_text(engine: Engine, family: Any) -> None:
    control = {int(token["id"]) for token in family.text._control.values()}

    def control_ids(caption: str) -> list[int]:
        group = Group(prefix=(random_image(1), ASK), suffixes=as_suffixes(caption))
        return [
            item_id
            for item_id in engine.prepare([group]).prompts[0].ids.tolist()
            if item_id in control
        ]

    for content in family.text._control:
        assert control_ids(f"a {content}{content} b") == control_ids("a b")


# Images.


def test_an_image_looks_the_same_alone_and_among_others(family: Family) -> None:
    images = [
        family.prepare_image(image, PixelLimits())
        for image in (random_image(1), random_image(2, (90, 40)), random_image(3, (20, 60)))
    ]
    with torch.inference_mode():
        together = family.encode_images(images)
        separate = [family.encode_images([reading])[0] for reading in images]

    for reading, other, shown in zip(together, separate, images, strict=True):
        assert reading.tokens.shape == (shown.n_tokens, 64)
        assert len(reading.deepstack) == family.report.n_deepstack
        for ours, theirs in zip(
            (reading.tokens, *reading.deepstack), (other.tokens, *other.deepstack), strict=True
        ):
            assert torch.allclose(ours, theirs, atol=1e-5)


def test_an_image_prepared_beforehand_reads_the_same_bits(engine: Engine) -> None:
    def prepared(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
        return tuple(
            engine.prepare_image(piece) if isinstance(piece, Image.Image) else piece
            for piece in pieces
        )

    groups = [
        Group(prefix=prepared(group.prefix), suffixes=tuple(map(prepared, group.suffixes)))
        for group in IMAGE_GROUPS
    ]

    assert np.array_equal(
        numbers(score(engine, groups, OFF)), numbers(score(engine, IMAGE_GROUPS, OFF))
    )


def test_pixel_limits_bound_what_an_image_takes(family: Family, folder: Path) -> None:
    large, tile = (
        random_image(7, (200, 100)),
        32 * 32 if folder.name.startswith("qwen3") else 28 * 28,
    )
    limits = [PixelLimits(max_pixels=peak * tile) for peak in (1, 3, 8)]

    shown = [family.prepare_image(large, limit) for limit in limits]

    # Qwen's patches hold each image twice, as frames of a film.
    frames = 2 if folder.name.startswith("qwen") else 1
    pixels = [item.pixels.numel() // (3 * frames) for item in shown]
    if folder.name == "gemma3":
        assert pixels == [tile] * 3
    else:
        assert pixels[0] == tile < pixels[1] <= 3 * tile
        assert pixels[1] <= pixels[2] <= 8 * tile
        assert shown[0].n_tokens < shown[1].n_tokens


# Packed.


def test_the_engine_is_the_packed_one_where_the_report_and_the_docs_say_so(
    engine: Engine, family: Family, folder: Path
) -> None:
    assert isinstance(engine, PlainEngine if family.report.unpacked_reason else PackedEngine)
    page = Path(__file__).parents[3].joinpath("docs", "models.md").read_text("utf-8")
    assert family.report.row(folder.name) in page
    reported = family.report.text()
    assert (f"no ({family.report.unpacked_reason})" in reported) is (
        family.report.unpacked_reason is not None
    )
    assert "visual enhancement: yes" in reported


def test_the_enhancement_acts_while_a_number_is_written_where_the_report_says_so(
    family: Family,
) -> None:
    params = ScorerParams(framing="retllm_number", score="number")

    if "visual enhancement: yes, but not while it writes;" in family.report.text():
        with pytest.raises(ModelError, match="while they write"):
            bind(family, params, "test")
    else:
        scorer = bind(family, params, "test")
        query, item = ItemContent(texts=("a red square",)), ItemContent(images=(random_image(1),))
        group = PairGroup(shared_side="candidate", shared=item, others=(query,))
        ((reading,),) = scorer.score(scorer.prepare([group]))
        assert reading.trace.fired
    bind(family, params.model_copy(update={"enhancement": OFF}), "test")


@pytest.mark.parametrize(
    "params",
    [
        OFF,
        ON,
        *(EnhancementParams(trigger=layer) for layer in (0, 1, 4)),
        EnhancementParams(memory="all", norm_match="sequence", lens_norm="none"),
    ],
    ids=["off", "on", "at 0", "at 1", "at 4", "as published"],
)
def test_packed_prompts_read_what_whole_prompts_read(
    packed: PackedEngine, plain: PlainEngine, params: EnhancementParams
) -> None:
    assert_same(score(packed, EVERYTHING, params), score(plain, EVERYTHING, params))


def test_prompts_that_fire_and_prompts_that_do_not_share_a_pack(
    engine: Engine, plain: PlainEngine
) -> None:
    groups = [*IMAGE_GROUPS, MANY_SUFFIXES]
    quiet = score(plain, groups, EnhancementParams(gamma=1.0))
    params = EnhancementParams(gamma=between([r.trace.uncertainty for r in quiet], 0.5))

    readings = score(engine, groups, params)

    of_one_prefix = {reading.trace.fired for reading in readings[-len(MANY_SUFFIXES.suffixes) :]}
    assert of_one_prefix == {True, False}
    assert_same(readings, score(plain, groups, params))
    changed = (numbers(readings) != numbers(score(engine, groups, OFF))).any(axis=1)
    assert all(changed[i] for i, reading in enumerate(readings) if reading.trace.fired)


@pytest.mark.parametrize("params", [OFF, ON], ids=["off", "on"])
def test_a_pair_reads_the_same_alone_and_in_any_company(
    engine: Engine, params: EnhancementParams
) -> None:
    together = score(engine, EVERYTHING[:-1], params)

    separate = [
        score(engine, [replace(group, suffixes=(suffix,))], params)[0]
        for group in EVERYTHING[:-1]
        for suffix in group.suffixes
    ]
    turned = [
        replace(group, suffixes=tuple(reversed(group.suffixes)))
        for group in reversed(EVERYTHING[:-1])
    ]

    assert_same(together, separate)
    assert_same(score(engine, turned, params)[::-1], together)


# Enhanced.


@pytest.mark.parametrize(
    "params",
    [
        EnhancementParams(alpha=0.0, trigger=2),
        EnhancementParams(gamma=1.0),
        EnhancementParams(gamma=5.0, memory="all", norm_match="sequence"),
    ],
    ids=["alpha 0", "gamma 1", "gamma 5, as published"],
)
def test_alpha_zero_or_gamma_one_is_the_plain_forward_bit_for_bit(
    engine: Engine, params: EnhancementParams
) -> None:
    readings = score(engine, EVERYTHING, params)

    assert np.array_equal(numbers(readings), numbers(score(engine, EVERYTHING, OFF)))
    assert not any(reading.trace.fired for reading in readings)


def test_a_forced_layer_looks_at_the_image_again(plain: PlainEngine, family: Family) -> None:
    layers = trigger_layers(ON, len(family.decoder.layers))
    before = score(plain, IMAGE_GROUPS, OFF)

    for layer in layers:
        readings = score(plain, IMAGE_GROUPS, EnhancementParams(trigger=layer))
        assert {reading.trace.layer for reading in readings} == {layer}
        assert np.abs(numbers(readings) - numbers(before)).max(axis=1).min() > 1e-4


@pytest.mark.parametrize("name", ["none", "sample2", "pool2", "kmeans(2)"])
def test_the_report_says_which_codecs_a_family_takes(
    engine: Engine, family: Family, name: str
) -> None:
    width = 64 * (1 + family.report.n_deepstack)
    codec = Codec(parse_codec(name), width=width, precision="float32", codebook=None)
    group = replace(IMAGE_GROUPS[0], prefix=(CodedImage(image=random_image(1), codec=codec), ASK))

    if name in family.report.no_codecs:
        with pytest.raises(ModelError, match=name):
            score(engine, [group], OFF)
    else:
        assert np.isfinite(numbers(score(engine, [group], OFF))).all()


# Seen on an earlier night, embedded, answered.


def test_kept_visual_tokens_read_what_pixels_read_bit_for_bit(
    engine: Engine, family: Family, folder: Path
) -> None:
    facts = describe_vision(f"hf:{folder}@float32")
    codec = Codec(parse_codec("none"), width=facts.dim, precision="float32", codebook=None)
    large = Group(
        prefix=(random_image(6, (112, 112)), random_image(7, (200, 100)), ASK),
        suffixes=as_suffixes("a", "b c"),
    )
    shown = [*EVERYTHING, large]
    contents = [
        ItemContent(images=tuple(piece for piece in pieces_of(group) if is_image(piece)))
        for group in shown
    ]
    tower = vision.bind(family, facts)
    kept = {
        id(image): image_file
        for content, recorded in zip(contents, tower.encode(tower.prepare(contents)), strict=True)
        for image, image_file in zip(
            content.images, decode_record(encode_record(recorded, codec), codec), strict=True
        )
    }

    def stored(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
        return tuple(kept.get(id(piece), piece) for piece in pieces)

    groups = [
        replace(item, prefix=stored(item.prefix), suffixes=tuple(map(stored, item.suffixes)))
        for item in shown
    ]
    for some, others in (
        (shown, groups),
        *(([a], [b]) for a, b in zip(shown, groups, strict=True)),
    ):
        family.vision_cache.clear()
        ours, theirs = (numbers(score(engine, work, ON)) for work in (others, some))
        assert np.array_equal(ours, theirs)


def test_the_state_behind_the_last_attention_is_what_the_last_feed_forward_adds_to(
    plain: PlainEngine, family: Any
) -> None:
    prepared = plain.prepare(IMAGE_GROUPS)
    assert isinstance(prepared, PreparedPrompts)
    with torch.inference_mode():
        visual_tokens = family.encode_images(prepared.images)
        between_both, before_norm = (
            HiddenStates(family, site).read(prepared.prompts, visual_tokens)
            for site in ("attn_L", "mlp_L_prenorm")
        )
        layer = family.decoder.layers[-1]
        norms = family.decoder.feed_forward_norms
        added = layer.mlp(norms[-1](between_both[None]))[0]
        behind = getattr(layer, "post_feedforward_layernorm", torch.nn.Identity())

    assert torch.allclose(between_both + behind(added), before_norm, atol=1e-5)


def test_answers_are_those_of_the_upstream_library(
    plain: PlainEngine, family: Any, folder: Path
) -> None:
    group = replace(IMAGE_GROUPS[1], suffixes=IMAGE_GROUPS[1].suffixes[:1])
    (prompt,) = plain.prepare([group]).prompts  # type: ignore[attr-defined]
    images = plain.prepare([group]).images  # type: ignore[attr-defined]
    with torch.inference_mode():
        visual_tokens = family.encode_images(images)
    inputs = upstream(folder, (*group.prefix, *group.suffixes[0]))

    (ours,) = generate(family, [prompt], visual_tokens, max_tokens=5, stop_ids=frozenset())

    theirs = family._model.generate(
        **inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False, eos_token_id=-1
    )
    assert ours == theirs[0, len(prompt.ids) :].tolist()


# Precision.


def test_half_precision_weights_are_read_in_float32(folder: Path) -> None:
    half = loaded(folder.name, folder, "bfloat16")
    logits = numbers(score(engine_for(half, PixelLimits()), IMAGE_GROUPS, ON))[:, :2]

    assert half.decoder.head_weight.dtype == torch.bfloat16
    rounded = torch.tensor(logits).bfloat16().double().numpy()
    assert (rounded != logits).mean() > 0.5


# What only some have.


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = save_family("llava_onevision", tmp_path_factory.mktemp("llava_onevision"))
    return loaded("llava_onevision", folder)


def test_llava_shows_an_image_without_tiles_as_one_of_several(llava: Any) -> None:
    both = [random_image(1, (90, 40)), random_image(2, (20, 60))]
    ours = [llava.prepare_image(image, PixelLimits(max_pixels=2 * 28 * 28)) for image in both]
    inputs = llava._images([both], return_tensors="pt")
    with torch.inference_mode():
        visual_tokens = llava.encode_images(ours)
        theirs = llava._model.get_image_features(
            inputs["pixel_values"][:, 0], inputs["image_sizes"], batch_num_images=[2]
        ).pooler_output

    assert [image.n_tokens for image in ours] == [5, 5]
    for image, other in zip(visual_tokens, theirs, strict=True):
        assert torch.allclose(image.tokens, other, atol=1e-5)


@pytest.mark.parametrize("tiles", [3, 4, 5, 9])
@pytest.mark.parametrize("size", [(20, 60), (90, 40), (300, 300), (400, 30), (57, 55), (29, 28)])
def test_llava_chooses_no_grid_beyond_the_limit(
    llava: Any, size: tuple[int, int], tiles: int
) -> None:
    image = random_image(1, size)
    shown = llava.prepare_image(image, PixelLimits(max_pixels=tiles * 28 * 28))
    free = llava.prepare_image(image, PixelLimits())

    assert len(shown.pixels) <= tiles
    if len(free.pixels) <= tiles:
        assert torch.equal(shown.pixels, free.pixels)


def test_smolvlms_own_processor_writes_images_the_same(tmp_path: Path) -> None:
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    smol = loaded("smolvlm", save_family("smolvlm", tmp_path))
    tokens = ("<fake_token_around_image>", "<image>", "<global-img>")
    for rows, cols in ((0, 0), (1, 2), (3, 1)):
        theirs = get_image_prompt_string(rows, cols, 4, *tokens)
        ours = smol._processor.replace_image_token({"rows": [[rows]], "cols": [[cols]]}, 0)
        assert ours == theirs


@pytest.mark.parametrize("name", sorted(SPACED))
def test_digits_are_read_behind_the_space_that_an_answer_begins_with(
    tmp_path: Path, name: str
) -> None:
    folder = save_family(name, tmp_path / name)
    family = loaded(name, folder)
    first, second = (
        ItemContent(images=(random_image(1),)),
        ItemContent(images=(random_image(2, (90, 40)),)),
    )
    texts = tuple(ItemContent(texts=(text,)) for text in ("a red square", "x", "grass"))

    def logits(framing: str, words: Sequence[str], *candidates: ItemContent) -> np.ndarray:
        """The upstream library's own, behind the prompt as its tokenizer writes it with a space."""
        candidate = Content(
            texts=tuple(text for item in candidates for text in item.texts),
            n_images=sum(item.n_images for item in candidates),
        )
        prompt = FRAMINGS[framing].render(Content(n_images=1), candidate)
        shown = {"query": first, "candidate": candidates[0]}
        inputs = upstream(folder, pieces((*prompt.prefix, *prompt.suffix), shown, {}))
        tokenizer = own_processor(folder).tokenizer
        space, *digits = (
            tokenizer.convert_tokens_to_ids(token)
            for token in tokenizer.tokenize(f" {''.join(words)}")
        )
        ids = torch.cat([inputs["input_ids"], torch.tensor([[space]])], dim=1)
        inputs.update(input_ids=ids, attention_mask=torch.ones_like(ids))
        with torch.no_grad():
            readings = family._model(**inputs).logits[0, -1, digits]
        return readings.double().numpy()

    def margins(*others: ItemContent, **params: Any) -> list[float]:
        scorer = bind(family, ScorerParams(enhancement=OFF, **params), "test")
        group = PairGroup(shared_side="query", shared=first, others=others)
        (readings,) = scorer.score(scorer.prepare([group]))
        return [reading.margin for reading in readings]

    yes, no = logits("object", "10", second)
    assert margins(second, method="indexmllm", framing="object") == pytest.approx(
        [yes - no], abs=1e-5
    )
    chances = np.exp(logits("retllm_listwise", "123", *texts))
    chances /= chances.sum()
    assert margins(*texts, framing="retllm_listwise", score="listwise") == pytest.approx(
        np.log(chances / (1 - chances)), abs=1e-5
    )


def test_features_of_the_depth_of_the_tower_matter(tmp_path: Path) -> None:
    qwen = loaded("qwen3_vl", save_family("qwen3_vl", tmp_path))
    engine = engine_for(qwen, PixelLimits())
    with_them = numbers(score(engine, IMAGE_GROUPS, OFF))
    encode_images = qwen.encode_images
    qwen.encode_images = lambda images: [
        VisualTokens(tokens=image.tokens) for image in encode_images(images)
    ]
    qwen.vision_cache.clear()

    assert np.abs(numbers(score(engine, IMAGE_GROUPS, OFF)) - with_them).max() > 1e-3


@pytest.mark.parametrize(
    "text_config",
    [
        {"model_type": "llama"},
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "qwen3", "head_dim": 16},
        {"model_type": "qwen3_moe", "head_dim": 16, **EXPERTS},
    ],
    ids=lambda config: config["model_type"],
)
def test_internvl_is_packed_whichever_known_decoder_is_inside(
    tmp_path: Path, text_config: dict[str, Any]
) -> None:
    folder = save_family("internvl", tmp_path / "internvl", text_config=text_config)
    family = loaded("internvl", folder)
    engine = engine_for(family, PixelLimits())
    group = IMAGE_GROUPS[0]

    assert isinstance(engine, PackedEngine)
    with torch.no_grad():
        inputs = upstream(folder, (*group.prefix, *group.suffixes[0]))
        logits = family._model(**inputs).logits[0, -1]
    assert numbers(score(engine, [group], OFF))[0, 2] == pytest.approx(
        float(logits.logsumexp(0)), abs=1e-5
    )
    for params in (OFF, ON):
        plain = PlainEngine(family, PixelLimits())
        assert_same(score(engine, EVERYTHING, params), score(plain, EVERYTHING, params))


def test_a_decoder_without_gates_is_refused(tmp_path: Path) -> None:
    folder = save_family(
        "internvl", tmp_path / "internvl", text_config={"model_type": "starcoder2"}
    )

    with pytest.raises(ModelError, match="starcoder2 have no gate"):
        loaded("internvl", folder)


def test_a_decoder_with_no_state_behind_its_last_attention_is_reported_and_embeds_elsewhere(
    tmp_path: Path,
) -> None:
    folder = save_family("internvl", tmp_path / "internvl", text_config={"model_type": "cohere"})
    family = loaded("internvl", folder)
    prepared = PlainEngine(family, PixelLimits()).prepare([IMAGE_GROUPS[0]])
    assert isinstance(prepared, PreparedPrompts)

    assert "FreeRet embedding: yes, but not at attn_L (its layers add" in family.report.text()
    with pytest.raises(ModelError, match="choose another site"):
        HiddenStates(family, "attn_L")
    with torch.inference_mode():
        states = HiddenStates(family, "mlp_L-1").read(
            prepared.prompts, family.encode_images(prepared.images)
        )
    assert states.isfinite().all()
    fired = score(PlainEngine(family, PixelLimits()), IMAGE_GROUPS, ON)
    assert all(reading.trace.fired for reading in fired)


@pytest.mark.parametrize(
    ("text_config", "reason"),
    [
        ({"model_type": "mistral", "sliding_window": 8}, "some layers attend to a window"),
        ({"model_type": "gemma", "head_dim": 16}, "layers of gemma are not like Llama's"),
    ],
)
def test_a_decoder_that_cannot_be_taken_apart_is_read_whole_and_reported(
    tmp_path: Path, text_config: dict[str, Any], reason: str
) -> None:
    folder = save_family("internvl", tmp_path / "internvl", text_config=text_config)
    family = loaded("internvl", folder)
    engine = engine_for(family, PixelLimits())
    (group,) = [replace(IMAGE_GROUPS[0], suffixes=IMAGE_GROUPS[0].suffixes[:1])]

    assert isinstance(engine, PlainEngine)
    assert f"packed: no ({reason})" in family.report.text()
    with torch.no_grad():
        inputs = upstream(folder, (*group.prefix, *group.suffixes[0]))
        logits = family._model(**inputs).logits[0, -1]
    (reading,) = score(engine, [group], OFF)
    assert reading.logsumexp == pytest.approx(float(logits.logsumexp(0)), abs=1e-5)


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('roles must alternate') }}", "{{ messages[0]['content'][0]['text'] }}"],
    ids=["it raises", "it forgets images"],
)
def test_a_model_whose_template_cannot_be_used_is_refused_by_name(
    llava: Any, template: str
) -> None:
    processor = deepcopy(llava._processor)
    processor.chat_template = template

    with pytest.raises(ModelError, match=r"chat template of some/model|some/model has no usable"):
        type(llava)(llava._model, processor, "some/model")


def test_a_load_is_reported_with_what_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_family("gemma3", tmp_path)

    with caplog.at_level(logging.INFO, "nightshift"):
        scorer = load_scorer(f"hf:{folder}@float32", ScorerParams(), device="cpu")

    assert isinstance(scorer._engine, PlainEngine)
    (reported,) = (
        record.getMessage() for record in caplog.records if record.name.startswith("nightshift")
    )
    assert reported.startswith(f"hf:{folder}@float32: Gemma3ForConditionalGeneration")
    assert "packed: no (visual tokens look ahead" in reported
    assert "visual enhancement: yes, but not while it writes;" in reported
