"""Visual enhancement: the formula, the state machine, and that it leaves no trace."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from nightshift.models.checkpoints.describe import describe_scorer
from nightshift.models.engine.enhancement import enhanced
from nightshift.models.engine.enhancement_formulas import (
    blend,
    correction,
    uncertainty,
    window_layers,
)
from nightshift.models.engine.family import EmbeddedPrompts, PixelLimits
from nightshift.models.engine.plain import PlainEngine
from nightshift.models.engine.protocol import Group, Reading
from nightshift.models.families import qwen2_5_vl
from nightshift.models.families.qwen2_5_vl import Qwen25VL
from nightshift.schema.errors import ModelError
from nightshift.schema.params import EnhancementParams, ScorerParams
from nightshift.scoring.prompts import Labels
from tests.models import tiny
from tests.models.readings import watching
from tests.models.tiny import random_image

LABELS = Labels(positive="True", negative="False")
OFF = EnhancementParams(trigger="never")
ON = EnhancementParams()
GROUPS = [
    Group(
        prefix=(random_image(seed, size), "Does the image match the caption:"),
        suffixes=tuple(
            (f" <{text}>? True or False",) for text in ("a red square", "x", "blue " * 9)
        ),
    )
    for seed, size in ((1, (56, 56)), (2, (112, 56)), (3, (28, 84)))
]
TEXT_ONLY = Group(prefix=("Is red blue?",), suffixes=((" True or False",),))


def read(
    family: Qwen25VL, params: EnhancementParams, groups: list[Group] | None = None
) -> list[Reading]:
    engine = PlainEngine(family, PixelLimits())
    prepared = engine.prepare(groups or GROUPS)
    readings = engine.score(prepared, labels=LABELS, enhancement=params)
    return [reading for group in readings for reading in group]


def numbers(readings: list[Reading]) -> np.ndarray:
    return np.array([[*r.label_logits, r.logsumexp, r.entropy] for r in readings])


def n_hooks(family: Qwen25VL) -> int:
    return sum(len(module._forward_hooks) for module in family._model.modules())


def hook_counts(modules: Iterable[nn.Module]) -> list[int]:
    return [len(module._forward_hooks) for module in modules]


# The formula.


@given(st.integers(2, 30))
def test_uncertainty_is_one_for_a_uniform_and_none_for_a_sure_head(k: int) -> None:
    logits = torch.zeros(2, 100)
    logits[1, 7] = 50.0

    u = uncertainty(logits, k)

    assert u.tolist() == pytest.approx([1.0, 0.0], abs=1e-3)
    assert u.max() <= 1


def test_uncertainty_looks_at_the_most_likely_tokens_row_by_row() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 200) * 3
    p = torch.softmax(logits.double(), 1).sort(1, descending=True).values[:, :10]
    p = p / p.sum(1, keepdim=True)
    by_hand = -(p * p.log()).sum(1) / np.log(10)

    assert uncertainty(logits, 10).tolist() == pytest.approx(by_hand.tolist(), abs=1e-5)
    assert uncertainty(logits[3:4], 10).tolist() == uncertainty(logits, 10)[3:4].tolist()


def test_a_vocabulary_smaller_than_top_k_is_looked_at_whole() -> None:
    assert float(uncertainty(torch.zeros(1, 4), 10)) == pytest.approx(1.0)


def _random_site() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(7, 16), torch.randn(7, 16), torch.randn(5, 16)


@pytest.mark.parametrize("activation", ["silu", "identity"])
def test_the_correction_is_the_published_formula(activation: str) -> None:
    x, _, z = _random_site()
    gate = torch.randn(32, 16)
    scale = gate.abs().mean() / z.abs().mean()
    phi = functional.silu if activation == "silu" else (lambda t: t)
    by_hand = torch.zeros(7, 16)
    for token in z:
        by_hand += phi((x * (scale * token)).sum(1))[:, None] * token

    delta = correction(x, z, float(gate.abs().mean()), activation)

    assert torch.allclose(delta, by_hand, atol=1e-4)


@pytest.mark.parametrize("norm_match", ["position", "sequence"])
def test_the_scale_of_the_values_cancels(norm_match: str) -> None:
    x, f, z = _random_site()
    delta = correction(x, z, 0.05, "silu")

    small, large = (blend(f, scale * delta, 0.12, norm_match) for scale in (1.0, 37.5))

    assert torch.allclose(small, large, rtol=0, atol=1e-6)


def test_the_blend_matches_sizes_as_it_says() -> None:
    x, f, z = _random_site()
    delta = correction(x, z, 0.05, "silu")

    complete, each = (blend(f, delta, 1.0, how) for how in ("sequence", "position"))

    assert float(complete.abs().mean()) == pytest.approx(float(f.abs().mean()))
    assert torch.allclose(each.abs().mean(1), f.abs().mean(1))
    assert torch.allclose(blend(f, delta, 0.3, "sequence"), 0.7 * f + 0.3 * complete)


def test_by_position_a_position_does_not_depend_on_its_neighbours() -> None:
    x, f, z = _random_site()
    delta = correction(x, z, 0.05, "silu")

    assert torch.equal(
        blend(f, delta, 0.12, "position")[2:4], blend(f[2:4], delta[2:4], 0.12, "position")
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm_match", ["position", "sequence"])
@pytest.mark.parametrize("zero", ["x", "z"])
def test_without_a_correction_the_output_is_itself_bit_for_bit(
    dtype: torch.dtype, norm_match: str, zero: str
) -> None:
    x, f, z = (tensor.to(dtype) for tensor in _random_site())
    f[0, 0] = -0.0
    x, z = (torch.zeros_like(x), z) if zero == "x" else (x, torch.zeros_like(z))

    out = blend(f, correction(x, z, 0.05, "silu"), 0.12, norm_match)

    assert out.dtype == dtype
    assert torch.equal(out.view(torch.uint8), f.view(torch.uint8))


def test_large_states_of_half_precision_do_not_overflow() -> None:
    x, f, z = (200 * tensor.half() for tensor in _random_site())

    assert torch.isfinite(blend(f, correction(x, z, 5.0, "silu"), 0.3, "position")).all()


# The window.


@pytest.mark.parametrize(
    ("n_layers", "layers"),
    [(28, range(6, 16)), (36, range(7, 21)), (8, range(2, 5)), (4, range(1, 3)), (3, range(1, 2))],
)
def test_the_window_scales_with_the_depth(n_layers: int, layers: range) -> None:
    assert window_layers(ON.window, n_layers) == layers


def test_absolute_bounds_are_exclusive() -> None:
    assert window_layers((5, 16), 32) == range(6, 16)
    assert window_layers((5, 16), 10) == range(6, 9)
    assert len(window_layers((5, 16), 7)) == 0, "by layers it is just those, as published"


@given(st.integers(2, 80), st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_any_window_leaves_a_layer_that_has_one_after_it(n_layers: int, window: list) -> None:
    layers = window_layers((window[0], window[1]), n_layers)

    assert len(layers) >= 1
    assert layers[0] >= 0
    assert layers[-1] <= n_layers - 2


def test_a_single_layer_has_no_window() -> None:
    assert len(window_layers(ON.window, 1)) == 0


# In the model.


@pytest.mark.parametrize(
    "params",
    [
        EnhancementParams(alpha=0.0),
        EnhancementParams(alpha=0.0, trigger=6),
        EnhancementParams(gamma=1.0),
        EnhancementParams(gamma=5.0, memory="all"),
    ],
    ids=str,
)
def test_alpha_zero_or_gamma_one_is_the_plain_forward_bit_for_bit(
    qwen: Qwen25VL, params: EnhancementParams
) -> None:
    assert np.array_equal(numbers(read(qwen, params)), numbers(read(qwen, OFF)))
    assert not any(reading.trace.fired for reading in read(qwen, params))


def test_random_weights_fire_at_the_first_layer_of_the_window(qwen: Qwen25VL) -> None:
    readings = read(qwen, ON)

    assert {reading.trace.layer for reading in readings} == {window_layers(ON.window, 18)[0]}
    assert all(ON.gamma < reading.trace.uncertainty <= 1 for reading in readings)
    assert np.abs(numbers(readings) - numbers(read(qwen, OFF))).max() > 1e-3


@pytest.mark.parametrize("forced", [0, 7, 16])
def test_a_forced_layer_changes_states_only_from_the_next_one_on(
    qwen: Qwen25VL, forced: int
) -> None:
    layers = list(qwen.decoder.layers)
    states = []
    for params in (OFF, EnhancementParams(trigger=forced)):
        with watching(layers) as recorded:
            read(qwen, params)
        states.append([calls[0][1] for calls in recorded])

    same = [torch.equal(*pair) for pair in zip(*states, strict=True)]

    assert same == [layer <= forced for layer in range(18)]


def test_a_forced_layer_pays_for_no_lens(qwen: Qwen25VL) -> None:
    (reading, *_) = read(qwen, EnhancementParams(trigger=7))

    assert (reading.trace.fired, reading.trace.layer) == (True, 7)
    assert reading.trace.uncertainty is None


def test_a_layer_without_a_next_one_cannot_be_forced(qwen: Qwen25VL) -> None:
    with pytest.raises(ModelError, match="0 to 16"):
        read(qwen, EnhancementParams(trigger=17))


def test_the_memory_enters_at_most_once_a_forward(qwen: Qwen25VL) -> None:
    feed_forwards = list(qwen.decoder.feed_forwards)
    lengths = [40, 40]
    embeddings = torch.randn(2, 40, 64) * 0.1
    positions = torch.arange(40).expand(3, 2, 40)
    embedded = EmbeddedPrompts(
        states=embeddings, positions=positions, visual=torch.zeros(2, 40, dtype=torch.bool)
    )
    params = EnhancementParams(gamma=0.0)
    with (
        torch.inference_mode(),
        enhanced(qwen.decoder, params, [embeddings[0, :9], embeddings[1, :9]], lengths) as state,
        watching(feed_forwards) as recorded,
    ):
        qwen.decode(embedded)
        changed = [
            layer
            for layer, calls in enumerate(recorded)
            for x, output in calls
            if not torch.equal(output, feed_forwards[layer].forward(x))
        ]

    first = window_layers(params.window, 18)[0]
    assert changed == [first + 1]
    assert [trace.layer for trace in state.traces()] == [first, first]


def test_prompts_decide_one_by_one_and_the_undecided_keep_their_bits(qwen: Qwen25VL) -> None:
    observed = [reading.trace.uncertainty for reading in read(qwen, EnhancementParams(gamma=1.0))]
    params = EnhancementParams(gamma=float(np.median(observed)))
    plain, mixed = read(qwen, OFF), read(qwen, params)

    fired = np.array([reading.trace.fired for reading in mixed])
    changed = (numbers(mixed) != numbers(plain)).any(axis=1)

    assert fired.any()
    assert not fired.all()
    assert changed.tolist() == fired.tolist()
    assert [reading.trace.uncertainty for reading in mixed if not reading.trace.fired] == (
        pytest.approx([u for u, flag in zip(observed, fired, strict=True) if not flag])
    )


@pytest.mark.parametrize(
    "params",
    [
        ON,
        EnhancementParams(trigger=9),
        EnhancementParams(memory="all", norm_match="sequence", lens_norm="none"),
        EnhancementParams(activation="identity", alpha=0.3),
    ],
    ids=str,
)
def test_a_batch_reads_what_single_prompts_read(qwen: Qwen25VL, params: EnhancementParams) -> None:
    separate = [
        read(qwen, params, [Group(prefix=group.prefix, suffixes=(suffix,))])[0]
        for group in GROUPS
        for suffix in group.suffixes
    ]
    together = read(qwen, params)

    assert numbers(together) == pytest.approx(numbers(separate), abs=1e-5)
    assert [r.trace.layer for r in together] == [r.trace.layer for r in separate]


def test_a_prompt_without_an_image_has_nothing_to_look_at_again(qwen: Qwen25VL) -> None:
    (enhanced_one,), (plain,) = read(qwen, ON, [TEXT_ONLY]), read(qwen, OFF, [TEXT_ONLY])

    assert np.array_equal(numbers([enhanced_one]), numbers([plain]))
    assert enhanced_one.trace == plain.trace


def test_every_choice_of_the_published_variants_makes_a_difference(qwen: Qwen25VL) -> None:
    variants = [
        ON,
        EnhancementParams(memory="all"),
        EnhancementParams(activation="identity"),
        EnhancementParams(norm_match="sequence"),
        EnhancementParams(alpha=0.3),
        EnhancementParams(trigger=9),
    ]

    results = [numbers(read(qwen, params)) for params in variants]

    for i, result in enumerate(results):
        for other in results[i + 1 :]:
            assert np.abs(result - other).max() > 1e-5


def test_the_lens_may_skip_the_final_norm(qwen: Qwen25VL) -> None:
    normed, raw = (
        [r.trace.uncertainty for r in read(qwen, EnhancementParams(gamma=1.0, lens_norm=norm))]
        for norm in ("final", "none")
    )

    assert np.abs(np.subtract(normed, raw)).max() > 1e-4


def test_only_layers_of_the_window_are_hooked(qwen: Qwen25VL) -> None:
    decoder, layers = qwen.decoder, window_layers(ON.window, 18)
    # transformers hooks all layers, for good, at the first forward that returns hidden states.
    before = hook_counts(decoder.layers), hook_counts(decoder.feed_forwards)
    with enhanced(decoder, ON, [torch.zeros(1, 64)], [1]):
        within = hook_counts(decoder.layers), hook_counts(decoder.feed_forwards)
    examined, injected = (
        [i for i, (old, new) in enumerate(zip(*counts, strict=True)) if new > old]
        for counts in zip(before, within, strict=True)
    )

    assert examined == list(layers)
    assert injected == [layer + 1 for layer in layers]


def test_hooks_come_off_on_exit_and_on_an_error(qwen: Qwen25VL) -> None:
    before = n_hooks(qwen)
    read(qwen, ON)
    assert n_hooks(qwen) == before

    with pytest.raises(ZeroDivisionError), enhanced(qwen.decoder, ON, [None], [1]):
        assert n_hooks(qwen) > before
        _ = 1 / 0
    assert n_hooks(qwen) == before


@pytest.mark.parametrize("n_layers", [2, 4, 8])
def test_a_shallow_model_is_enhanced_too(n_layers: int, tmp_path) -> None:
    facts = describe_scorer(
        f"hf:{tiny.save_qwen(tmp_path, n_layers=n_layers)}@float32", ScorerParams()
    )
    family = qwen2_5_vl.load(facts, torch.device("cpu"))

    readings = read(family, ON)

    assert all(reading.trace.fired for reading in readings)
    assert np.abs(numbers(readings) - numbers(read(family, OFF))).max() > 1e-4


# Against the published code, written out once more for one prompt, layer by layer.


def published(qwen: Qwen25VL, embeddings: Tensor, positions: Tensor, alpha: float) -> Tensor:
    """Logits of the last position; all prompt embeddings are the memory, the lens has no norm."""
    model = qwen._model.model.language_model
    rotary = model.rotary_emb(embeddings, positions)
    head = qwen._model.lm_head.weight
    h, armed, fired = embeddings, None, False
    for number, layer in enumerate(model.layers):
        attended, _ = layer.self_attn(
            hidden_states=layer.input_layernorm(h),
            attention_mask=None,
            position_embeddings=rotary,
        )
        h = h + attended
        x = layer.post_attention_layernorm(h)
        mlp = layer.mlp
        f = mlp.down_proj(functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
        if armed == number:
            z = embeddings[0]
            keys = z * (mlp.gate_proj.weight.abs().mean() / z.abs().mean())
            values = z * (mlp.down_proj.weight.abs().mean() / z.abs().mean())
            delta = functional.silu(x[0] @ keys.T) @ values
            f = (1 - alpha) * f + alpha * (f.abs().mean() / delta.abs().mean()) * delta
        h = h + f
        top = torch.topk(h[0, -1] @ head.T, 10).values
        p = torch.softmax(top, 0)
        u = -(p * p.log()).sum() / np.log(10)
        if u > 0.75 and not fired and 5 / 28 * 18 < number < 16 / 28 * 18:
            armed, fired = number + 1, True
    return head @ model.norm(h)[0, -1]


@pytest.mark.parametrize("alpha", [0.12, 0.3])
def test_the_published_variant_gives_the_published_numbers(qwen: Qwen25VL, alpha: float) -> None:
    params = EnhancementParams(
        alpha=alpha, memory="all", lens_norm="none", norm_match="sequence", activation="silu"
    )
    engine = PlainEngine(qwen, PixelLimits())
    group = Group(prefix=GROUPS[1].prefix, suffixes=GROUPS[1].suffixes[:1])
    (prompt,) = engine.prepare([group]).prompts
    images = [qwen.prepare_image(group.prefix[0], PixelLimits())]
    with torch.inference_mode():
        embeddings = qwen.embed(prompt.ids[None])
        (token,) = qwen.encode_images(images)
        embeddings[qwen.is_visual(prompt.ids[None])] = token.tokens
        logits = published(qwen, embeddings, prompt.positions[:, None], alpha)
    labels = [qwen.text.label("True"), qwen.text.label("False")]

    (reading,) = read(qwen, params, [group])

    assert reading.trace.fired
    assert reading.label_logits == pytest.approx(logits[labels].numpy(), abs=1e-5)
    assert reading.logsumexp == pytest.approx(float(logits.logsumexp(0)), abs=1e-5)
