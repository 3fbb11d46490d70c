"""Visual tokens made once and read later: the pixels' scores, bit for bit (§4.5 a–c, e, f)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nightshift.models.checkpoints.describe import describe_vision
from nightshift.models.engine.family import Family, PixelLimits
from nightshift.models.engine.packed.engine import PackedEngine
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.prompts import PreparedPrompts
from nightshift.models.engine.protocol import Group
from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.models.inputs.codecs.product import train
from nightshift.models.inputs.codecs.records import decode_record, encode_record
from nightshift.models.inputs.codecs.tokens import CodedImage
from nightshift.models.inputs.content import ItemContent
from nightshift.models.load import load_family
from nightshift.models.preflight.token_grids import token_grids
from nightshift.models.scorers.binding import bind
from nightshift.models.scorers.pairs import PairScorer
from nightshift.models.scorers.protocol import PairGroup, PairReading
from nightshift.schema.errors import InputError, ModelError
from nightshift.schema.params import EnhancementParams, ScorerParams
from nightshift.scoring.codecs import Quantise
from nightshift.scoring.prompts import Labels
from tests.models.stored import WIDTH, codec_of, stored, visual_tokens_of
from tests.models.tiny import random_image

OFF = EnhancementParams(trigger="never")
LABELS = Labels(positive="1", negative="0")
QUERY = ItemContent(images=(random_image(1),))
# 2 × 2, 4 × 2, 1 × 3 and 3 × 4 visual tokens: odd sides among them.
SIZES = [(56, 56), (56, 112), (84, 28), (112, 84)]
CANDIDATES = tuple(ItemContent(images=(random_image(n, size),)) for n, size in enumerate(SIZES, 2))
TWO = ItemContent(images=CANDIDATES[0].images + CANDIDATES[3].images)


def family_params(**more: object) -> ScorerParams:
    return ScorerParams(method="indexmllm", framing="object", enhancement=OFF, **more)


@pytest.fixture(scope="session")
def facts(qwen_folder: Path):
    return describe_vision(f"hf:{qwen_folder}@float32")


def read(scorer: PairScorer, query: ItemContent, *candidates: ItemContent) -> list[PairReading]:
    group = PairGroup(shared_side="query", shared=query, others=candidates)
    (readings,) = scorer.score(scorer.prepare([group]))
    return list(readings)


def exact(readings: list[PairReading]) -> list[tuple[float, ...]]:
    return [(r.logit_positive, r.logit_negative, r.logsumexp, r.entropy) for r in readings]


# Pixels and tokens.


@pytest.mark.parametrize("method", ["indexmllm", "retllm", "freeret"])
def test_tokens_under_codec_none_score_as_pixels_do_bit_for_bit(
    qwen: Qwen25VL, facts, method: str
) -> None:
    framing = {"indexmllm": "object"}.get(method, method)
    enhancement = EnhancementParams() if method == "retllm" else OFF
    params = ScorerParams(method=method, framing=framing, enhancement=enhancement)
    scorer = bind(qwen, params, "f")
    contents = (*CANDIDATES, TWO)
    none = codec_of("none")

    from_pixels = read(scorer, QUERY, *contents)
    of_candidates = [stored(qwen, facts, content, none) for content in contents]
    from_tokens = read(scorer, stored(qwen, facts, QUERY, none), *of_candidates)
    mixed = read(scorer, QUERY, of_candidates[0], *contents[1:])

    assert exact(from_tokens) == exact(from_pixels)
    assert exact(mixed) == exact(from_pixels)


def test_an_image_seen_alone_has_the_tokens_that_it_has_among_others(qwen: Qwen25VL, facts) -> None:
    together = visual_tokens_of(qwen, facts, *CANDIDATES, TWO)
    for content, images in zip((*CANDIDATES, TWO), together, strict=True):
        (separate,) = visual_tokens_of(qwen, facts, content)
        for reading, other in zip(separate, images, strict=True):
            assert reading.values.tobytes() == other.values.tobytes()


def test_texts_stand_where_they_stood(qwen: Qwen25VL, facts) -> None:
    scorer = bind(qwen, ScorerParams(enhancement=OFF), "f")
    query = ItemContent(texts=("a red square",), images=QUERY.images)
    candidate = ItemContent(texts=("grass",), images=TWO.images)

    later = stored(qwen, facts, candidate, codec_of("none"))

    assert exact(read(scorer, query, later)) == exact(read(scorer, query, candidate))


# Codecs.


@pytest.mark.parametrize(
    "name", ["int8", "kmeans(3)", "group(2)+int8", "sample2", "pool2", "pool2(replicate)"]
)
def test_what_a_codec_stored_scores_as_what_it_does_on_the_fly(
    qwen: Qwen25VL, facts, name: str
) -> None:
    codec = codec_of(name)
    scorer = bind(qwen, family_params(codec=name), "f", codec)
    plain = bind(qwen, family_params(), "f")
    prepared = (
        ItemContent(images=tuple(map(scorer.prepare_image, candidate.images)))
        for candidate in CANDIDATES
    )

    on_the_fly = read(scorer, QUERY, *CANDIDATES)
    from_store = read(
        scorer, QUERY, *(stored(qwen, facts, candidate, codec) for candidate in CANDIDATES)
    )

    assert exact(from_store) == exact(on_the_fly)
    assert exact(read(scorer, QUERY, *prepared)) == exact(on_the_fly)
    assert exact(on_the_fly) != exact(read(plain, QUERY, *CANDIDATES))


def test_a_codebook_that_holds_every_token_changes_no_score(qwen: Qwen25VL, facts) -> None:
    (images,) = visual_tokens_of(qwen, facts, CANDIDATES[0])
    book = train(Quantise(kind="pq", parts=1, bits=2), images[0].values).to_bytes()
    codec = codec_of("pq(1,2)", book)
    scorer = bind(qwen, family_params(codec="pq(1,2)"), "f", codec)

    coded = read(scorer, QUERY, CANDIDATES[0])

    (plain,) = read(bind(qwen, family_params(), "f"), QUERY, CANDIDATES[0])
    assert coded[0].margin == pytest.approx(plain.margin, abs=1e-4)


def test_an_image_seen_lately_is_shown_by_the_codebook_of_this_run(qwen: Qwen25VL, facts) -> None:
    own, others = (
        train(
            Quantise(kind="pq", parts=1, bits=2),
            visual_tokens_of(qwen, facts, candidate)[0][0].values,
        ).to_bytes()
        for candidate in CANDIDATES[:2]
    )

    def coded(book: bytes) -> list[tuple[float, ...]]:
        codec = codec_of("pq(1,2)", book)
        return exact(
            read(bind(qwen, family_params(codec="pq(1,2)"), "f", codec), QUERY, *CANDIDATES)
        )

    by_own = coded(own)
    images_before = qwen.counters.images

    assert coded(others) != by_own
    assert coded(own) == by_own
    assert qwen.counters.images == images_before


def test_queries_stay_as_they_are_unless_they_are_coded_too(qwen: Qwen25VL) -> None:
    codec = codec_of("kmeans(2)")
    candidates_only = bind(qwen, family_params(codec="kmeans(2)"), "f", codec)
    both = bind(qwen, family_params(codec="kmeans(2)", code_queries=True), "f", codec)
    group = PairGroup(shared_side="query", shared=QUERY, others=CANDIDATES[:1])

    def codecs(scorer: PairScorer) -> list[bool]:
        prepared = scorer.prepare([group]).groups
        assert isinstance(prepared, PreparedPrompts)
        return [image.codec is not None for image in prepared.images]

    assert codecs(candidates_only) == [False, True]
    assert codecs(both) == [True, True]
    assert exact(read(candidates_only, QUERY, *CANDIDATES)) != exact(read(both, QUERY, *CANDIDATES))


@pytest.mark.parametrize("name", ["sample2", "pool2", "kmeans(3)"])
def test_packed_prompts_read_what_whole_ones_read(qwen: Qwen25VL, name: str) -> None:
    codec = codec_of(name)
    coded = [CodedImage(image=candidate.images[0], codec=codec) for candidate in CANDIDATES]
    group = Group(
        prefix=(coded[0], "Query, then candidate:", coded[3]),
        suffixes=tuple((candidate, "the same?") for candidate in coded),
    )

    def margins(engine) -> np.ndarray:
        (readings,) = engine.score(engine.prepare([group]), labels=LABELS, enhancement=OFF)
        return np.array([candidate.label_logits for candidate in readings])

    packed = PackedEngine(qwen, qwen.layer_ops, PixelLimits())
    assert margins(packed) == pytest.approx(margins(PlainEngine(qwen, PixelLimits())), abs=1e-5)


# Positions.


def test_sampled_tokens_keep_the_positions_of_the_whole_image(qwen: Qwen25VL) -> None:
    codec = codec_of("sample2")
    image = CANDIDATES[3].images[0]  # 3 × 4 tokens

    def part(piece):
        group = Group(prefix=(piece, "then"), suffixes=(("a red square",),))
        prepared = PlainEngine(qwen, PixelLimits()).prepare([group])
        assert isinstance(prepared, PreparedPrompts)
        return prepared.groups[0]

    complete, sampled = part(image), part(CodedImage(image=image, codec=codec))

    visual = qwen.is_visual(complete.prefix.ids).nonzero()[:, 0]
    dropped = [int(visual[i]) for i in range(12) if i not in (0, 2)]
    left = [i for i in range(len(complete.prefix.ids)) if i not in dropped]
    assert torch.equal(sampled.prefix.ids, complete.prefix.ids[left])
    assert torch.equal(sampled.prefix.positions, complete.prefix.positions[:, left])
    assert torch.equal(sampled.suffixes[0].positions, complete.suffixes[0].positions)


def test_replicated_tokens_keep_the_length(qwen: Qwen25VL) -> None:
    scorer = bind(
        qwen, family_params(codec="sample2(replicate)"), "f", codec_of("sample2(replicate)")
    )
    group = PairGroup(shared_side="query", shared=QUERY, others=CANDIDATES)
    prepared = scorer.prepare([group]).groups
    plain = bind(qwen, family_params(), "f").prepare([group]).groups
    lengths = [[len(prompt.ids) for prompt in both.prompts] for both in (prepared, plain)]
    assert lengths[0] == lengths[1]


# Records.


def test_records_are_as_large_as_their_codec_says_and_a_header(qwen: Qwen25VL, facts) -> None:
    (images,) = visual_tokens_of(qwen, facts, TWO)
    codec = codec_of("int8")
    payload = sum(codec.n_bytes(entry.tokens) for entry in images)

    record = encode_record(images, codec)

    assert payload < len(record) < payload + 400


@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d + b"x", lambda d: bytes(8) + d[8:], lambda d: d[4:]]
)
def test_bytes_that_are_no_record_are_refused(qwen: Qwen25VL, facts, change) -> None:
    (images,) = visual_tokens_of(qwen, facts, TWO)
    record = encode_record(images, codec_of("none"))
    with pytest.raises(InputError, match="again"):
        decode_record(change(record), codec_of("none"))


# Names and plans.


def test_scorers_of_one_model_and_limits_share_their_vision_tower(qwen_folder: Path) -> None:
    spec = f"hf:{qwen_folder}@float32"
    facts = describe_vision(spec)
    assert facts.dim == WIDTH
    assert describe_vision(spec).fingerprint == facts.fingerprint
    others = [
        describe_vision(spec, max_pixels=5000),
        describe_vision(spec, min_pixels=4000),
        describe_vision(f"hf:{qwen_folder}@bfloat16"),
    ]
    assert len({facts.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_tokens_are_counted_without_weights(qwen: Qwen25VL, facts) -> None:
    images = [content.images[0] for content in CANDIDATES]

    grids = token_grids(facts, images)

    assert grids == [image.tokens for (image,) in visual_tokens_of(qwen, facts, *CANDIDATES)]
    family: Family = load_family(facts, device="meta")
    assert family.decoder.head_weight.is_meta


def test_a_codec_by_blocks_is_refused_where_a_family_has_no_grid(qwen: Qwen25VL) -> None:
    class Tiled(Qwen25VL):
        def _prepare(self, image, limits):
            results = super()._prepare(image, limits)
            return type(results)(
                pixels=results.pixels,
                grid=(1,),
                n_tokens=results.n_tokens,
                prompt_parts=results.prompt_parts,
            )

    tiled = Tiled(qwen._model, qwen._processor, "tiled")
    scorer = bind(tiled, family_params(codec="pool2"), "f", codec_of("pool2"))
    with pytest.raises(ModelError, match="tiles"):
        scorer.prepare([PairGroup(shared_side="query", shared=QUERY, others=CANDIDATES)])
