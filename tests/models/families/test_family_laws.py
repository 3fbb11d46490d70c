"""Laws of the papers' methods, checked on every family (methods §1.11, §3.7 and §4.5)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nightshift.models.checkpoints.describe import FAMILIES, describe_embedder
from nightshift.models.engine.enhancement import enhanced
from nightshift.models.engine.enhancement_formulas import window_layers
from nightshift.models.engine.family import Family, PixelLimits
from nightshift.models.engine.hidden_states import HiddenStates
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.prompts import PreparedPrompts, Prompt, embed
from nightshift.models.engine.protocol import Group
from nightshift.models.engine.visual import encode_images
from nightshift.models.inputs.codecs.codec import Codec
from nightshift.models.inputs.codecs.tokens import CodedImage
from nightshift.models.inputs.content import ItemContent
from nightshift.models.load import bind_embedder
from nightshift.models.scorers.binding import bind, engine_for
from nightshift.models.scorers.pairs import PairScorer
from nightshift.models.scorers.protocol import PairGroup, Scorer
from nightshift.schema.params import EnhancementParams, ScorerParams
from nightshift.scoring.codecs import parse_codec
from nightshift.scoring.methods.registry import framings_of
from nightshift.scoring.prompts import Framing, Labels
from tests.models.readings import OFF, ON, numbers, score, watching
from tests.models.tiny import random_image
from tests.models.tiny_families import loaded, save_family, upstream

GROUP = Group(
    prefix=(random_image(2, (90, 40)), "Does the image match the caption:"),
    suffixes=((" <a red square>? True or False",), (" <x>? True or False",)),
)
TEXT = ItemContent(texts=("a red square",))
IMAGE = ItemContent(images=(random_image(1),))
OTHER = ItemContent(images=(random_image(2, (90, 40)),))
BOTH = ItemContent(texts=("grass",), images=(random_image(3, (20, 60)),))
CONTENTS = (TEXT, IMAGE, OTHER, BOTH)
SITES = ("attn_L", "mlp_L_prenorm", "mlp_L_postnorm", "mlp_L-1")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of each family in turn."""
    return save_family(request.param, tmp_path_factory.mktemp("x") / request.param)


@pytest.fixture(scope="module")
def family(folder: Path) -> Any:
    return loaded(folder.name, folder)


def prepared(family: Family, *groups: Group) -> PreparedPrompts:
    prepared_groups = PlainEngine(family, PixelLimits()).prepare(groups)
    assert isinstance(prepared_groups, PreparedPrompts)
    return prepared_groups


def margins(scorer: Scorer, query: ItemContent, *candidates: ItemContent) -> list[float]:
    group = PairGroup(shared_side="query", shared=query, others=candidates)
    (readings,) = scorer.score(scorer.prepare([group]))
    return [reading.margin for reading in readings]


def hooks(family: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in family._model.modules())


def whole_states(family: Family, prompt: Prompt, prepared: PreparedPrompts) -> torch.Tensor:
    """Normed states (1, length, width) of a prompt read by itself."""
    return family.decode(embed(family, [prompt], encode_images(family, prepared.images)))


# RetLLM's enhancement, §1.11.


def test_a_forced_layer_changes_states_only_from_the_next_one_on(family: Any) -> None:
    layers = list(family.decoder.layers)
    states = []
    for params in (OFF, EnhancementParams(trigger=2)):
        with watching(layers) as recorded:
            score(PlainEngine(family, PixelLimits()), [GROUP], params)
        states.append([calls[0][1] for calls in recorded])

    same = [torch.equal(*pair) for pair in zip(*states, strict=True)]

    assert same == [layer <= 2 for layer in range(len(layers))]


@torch.inference_mode()
def test_the_memory_enters_at_most_once_a_forward(family: Any) -> None:
    prompts = prepared(family, GROUP)
    visual_tokens = encode_images(family, prompts.images)
    embedded = embed(family, prompts.prompts, visual_tokens)
    memories = [
        torch.cat([visual_tokens[i].tokens for i in prompt.images]) for prompt in prompts.prompts
    ]
    lengths = [len(prompt.ids) for prompt in prompts.prompts]
    feed_forwards: list[nn.Module] = list(family.decoder.feed_forwards)
    # Every layer of the window would fire.
    params = EnhancementParams(gamma=0.0, window=(0, 5))

    with (
        enhanced(family.decoder, params, memories, lengths) as state,
        watching(feed_forwards) as on,
    ):
        family.decode(embedded)

    with torch.inference_mode():
        changed = [
            layer
            for layer, calls in enumerate(on)
            for x, output in calls
            if not torch.equal(output, feed_forwards[layer].forward(x))
        ]
    first = window_layers(params.window, len(feed_forwards))[0]
    assert changed == [first + 1]
    assert {trace.layer for trace in state.traces()} == {first}


def test_hooks_come_off_on_exit_and_on_an_error(family: Any) -> None:
    before = hooks(family)
    score(PlainEngine(family, PixelLimits()), [GROUP], ON)
    assert hooks(family) == before

    with pytest.raises(ZeroDivisionError), enhanced(family.decoder, ON, [None], [1]):
        assert hooks(family) > before
        _ = 1 / 0
    assert hooks(family) == before


# FreeRet, §3.7.


@torch.inference_mode()
@pytest.mark.parametrize("site", SITES)
def test_stopping_early_gives_the_state_of_a_whole_forward(family: Any, site: str) -> None:
    prompts = prepared(family, replace(GROUP, suffixes=GROUP.suffixes[:1]))
    (prompt,) = prompts.prompts
    modules = {
        "attn_L": family.decoder.feed_forward_norms[-1],
        "mlp_L_prenorm": family.decoder.norm,
        "mlp_L-1": family.decoder.layers[-1],
    }
    before = hooks(family)
    readings = HiddenStates(family, site).read([prompt], encode_images(family, prompts.images))
    assert hooks(family) == before

    read: list[torch.Tensor] = []
    module = modules.get(site, family.decoder.norm)
    handle = module.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].clone()))
    try:
        states = whole_states(family, prompt, prompts)
    finally:
        handle.remove()

    expected = states if site == "mlp_L_postnorm" else read[0]
    assert torch.equal(readings[0], expected[0, -1])


@torch.inference_mode()
def test_the_last_sites_are_the_library_s_last_hidden_states(family: Any, folder: Path) -> None:
    prompts = prepared(family, replace(GROUP, suffixes=GROUP.suffixes[:1]))
    visual_tokens = encode_images(family, prompts.images)
    library = family._model(
        **upstream(folder, (*GROUP.prefix, *GROUP.suffixes[0])), output_hidden_states=True
    ).hidden_states

    for site, expected in (("mlp_L_postnorm", library[-1]), ("mlp_L-1", library[-2])):
        readings = HiddenStates(family, site).read(prompts.prompts, visual_tokens)
        torch.testing.assert_close(readings[0], expected[0, -1], atol=1e-5, rtol=0)


def test_a_batch_embeds_as_each_content_alone_in_vectors_of_length_one(
    family: Family, folder: Path
) -> None:
    embedder = bind_embedder(family, describe_embedder(f"freeret:{folder}@float32"))

    def vectors(*contents: ItemContent) -> np.ndarray:
        return embedder.embed(embedder.prepare(contents, "candidate")).vectors

    together = vectors(*CONTENTS)

    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=0, atol=1e-6)
    assert np.abs(together @ together.T).max() <= 1 + 1e-6
    separate = np.concatenate([vectors(content) for content in CONTENTS])
    np.testing.assert_allclose(together, separate, rtol=0, atol=1e-5)
    assert np.abs(together[0] - together[1:]).max(axis=1).min() > 1e-3


def test_a_choice_does_not_depend_on_the_other_pairs_of_its_batch(family: Family) -> None:
    scorer = bind(family, asking(), "test")

    together = margins(scorer, TEXT, *CONTENTS)

    separate = [margins(scorer, TEXT, content)[0] for content in CONTENTS]
    assert together == pytest.approx(separate, abs=1e-5)
    assert len({round(margin, 4) for margin in together}) == len(CONTENTS)


def test_a_debiased_choice_is_antisymmetric_under_relabelling(family: Family) -> None:
    rules = framings_of(asking(debias="swap"))

    def read(rules: Sequence[Framing]) -> list[float]:
        engine = engine_for(family, PixelLimits())
        return margins(PairScorer(engine, rules, OFF, "test"), TEXT, IMAGE, BOTH)

    readings = read(rules)

    assert read([relabelled(rule) for rule in rules]) == pytest.approx(
        [-margin for margin in readings], abs=1e-6
    )
    assert read(rules[::-1]) == pytest.approx(readings, abs=1e-6)


def asking(**options: Any) -> ScorerParams:
    return ScorerParams(method="freeret", framing="freeret", enhancement=OFF, **options)


def relabelled(rule: Framing) -> Framing:
    labels = Labels(positive=rule.labels.negative, negative=rule.labels.positive)
    return replace(rule, labels=labels)


# IndexMLLM, §4.5.


def test_a_pair_scored_both_ways_round_gives_two_scores(family: Family) -> None:
    scorer = bind(family, same_object(), "test")
    forward, backward = margins(scorer, IMAGE, OTHER)[0], margins(scorer, OTHER, IMAGE)[0]

    assert abs(forward - backward) > 1e-4
    mean = bind(family, same_object(symmetrise=True), "test")
    assert margins(mean, IMAGE, OTHER) == pytest.approx([(forward + backward) / 2], abs=1e-5)


@torch.inference_mode()
def test_a_codec_of_candidates_leaves_the_query_as_it_is(family: Family) -> None:
    codec = codec_of(family, "kmeans(2)")
    group = PairGroup(shared_side="query", shared=IMAGE, others=(OTHER,))

    def shown(scorer: Scorer) -> list[torch.Tensor]:
        groups = scorer.prepare([group]).groups  # type: ignore[attr-defined]
        return [image.tokens for image in encode_images(family, groups.images)]

    plain = shown(bind(family, same_object(), "test"))
    coded = shown(bind(family, same_object(codec="kmeans(2)"), "test", codec))

    assert torch.equal(coded[0], plain[0])
    assert len(coded[1].unique(dim=0)) == 2 < len(plain[1].unique(dim=0))


def test_sampled_tokens_keep_the_places_of_the_whole_image_and_replicated_ones_the_length(
    family: Family,
) -> None:
    if "sample2" in family.report.no_codecs:
        pytest.skip("its visual tokens stand in no rows and columns of the whole image")
    image = random_image(4, (112, 84))

    def prefix(codec: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        piece = CodedImage(image=image, codec=codec_of(family, codec)) if codec else image
        (group,) = prepared(family, replace(GROUP, prefix=(piece, "then"))).groups
        return group.prefix.ids, group.prefix.positions

    ids, positions = prefix(None)
    visual = family.is_visual(ids).nonzero()[:, 0]
    _, rows, columns = (
        int(n) + 1 for n in (positions[:, visual] - positions[:, visual[:1]]).amax(1)
    )
    kept = [
        r * columns + c for r in range(0, rows // 2 * 2, 2) for c in range(0, columns // 2 * 2, 2)
    ]
    dropped = {int(visual[i]) for i in range(len(visual)) if i not in kept}
    left = [i for i in range(len(ids)) if i not in dropped]
    sampled = prefix("sample2")
    assert torch.equal(sampled[0], ids[left])
    assert torch.equal(sampled[1], positions[:, left])
    assert torch.equal(prefix("sample2(replicate)")[0], ids)


def test_a_query_s_kept_keys_and_values_read_what_whole_prompts_read_to_1e_6(
    family: Family,
) -> None:
    if family.layer_ops is None:
        pytest.skip(f"cannot be packed: {family.report.unpacked_reason}")
    scorer = bind(family, same_object(), "test")
    group = PairGroup(shared_side="query", shared=IMAGE, others=(OTHER, IMAGE))
    requested = family.with_labels(("1", "0"))
    groups = scorer.prepare([group]).groups  # type: ignore[attr-defined]
    engines = engine_for(requested, PixelLimits()), PlainEngine(requested, PixelLimits())
    labels = Labels(positive="1", negative="0")

    kept, complete = (
        numbers(
            [
                reading
                for of_group in engine.score(groups, labels=labels, enhancement=OFF)
                for reading in of_group
            ]
        )
        for engine in engines
    )

    assert np.abs(kept - complete).max() <= 1e-6 * np.abs(complete).max()


def same_object(**options: Any) -> ScorerParams:
    return ScorerParams(method="indexmllm", framing="object", enhancement=OFF, **options)


def codec_of(family: Family, name: str) -> Codec:
    width = 64 * (1 + family.report.n_deepstack)
    return Codec(parse_codec(name), width=width, precision="float32", codebook=None)
