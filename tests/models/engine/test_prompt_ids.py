"""Whoever asks, and about whatever: the token ids are those of the checkpoint's own processor."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import groupby, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from nightshift.models.answer import Answerer, Question
from nightshift.models.checkpoints.describe import (
    FAMILIES,
    describe_embedder,
    describe_scorer,
    describe_vision,
)
from nightshift.models.embedders.freeret import FreeRetEmbedder
from nightshift.models.engine.family import PixelLimits
from nightshift.models.engine.prompt_writer import prepare
from nightshift.models.engine.prompts import Prompt
from nightshift.models.engine.protocol import Group, Piece
from nightshift.models.engine.text import TextEncoder
from nightshift.models.inputs.content import ItemContent
from nightshift.models.scorers.binding import bind
from nightshift.models.scorers.protocol import PairGroup
from nightshift.models.scorers.rendering import content_of, pieces
from nightshift.schema.identity import fingerprint
from nightshift.schema.params import EmbedderParams, EnhancementParams, ScorerParams
from nightshift.schema.records import PartKind
from nightshift.scoring.answering import answer_prompt
from nightshift.scoring.methods.freeret_embedding import TASKS, instruction
from nightshift.scoring.methods.registry import METHODS, framings_of, tie_framing
from nightshift.scoring.prompts import Framing
from tests.models.readings import OFF
from tests.models.tiny import corpus, qwen_tokenizer, random_image
from tests.models.tiny_families import loaded, own_processor, save_family, upstream

#: A text that a template may strip, and whose first letters many heads could swallow.
PADDED, PLAIN = " two red squares\n", "grass: blue"
IMAGES = (random_image(1), random_image(2, (90, 40)), random_image(3, (20, 60)))
KINDS: list[frozenset[PartKind]] = [
    frozenset({"text"}),
    frozenset({"image"}),
    frozenset({"text", "image"}),
]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(request.param, tmp_path_factory.mktemp("x") / request.param, n_layers=2)


@pytest.fixture(scope="module")
def family(folder: Path) -> Any:
    return loaded(folder.name, folder)


def content(kinds: frozenset[PartKind], text: str, *images: Any) -> ItemContent:
    return ItemContent(
        texts=(text,) if "text" in kinds else (), images=images if "image" in kinds else ()
    )


def theirs(folder: Path, shown: Sequence[Piece]) -> list[int]:
    """Token ids of a content by the checkpoint's own processor."""
    runs = [is_text for is_text, _ in groupby(shown, key=lambda piece: isinstance(piece, str))]
    if folder.name != "llava_onevision" or runs == [False, True]:
        return [int(token_id) for token_id in upstream(folder, shown)["input_ids"][0]]
    # Its template moves images to the front: here they are written where they stand.
    text = ""
    for before, piece in zip([None, *shown], shown, strict=False):
        is_text = isinstance(piece, str)
        text += "\n" if is_text and before is not None and not isinstance(before, str) else ""
        text += piece if isinstance(piece, str) else "<image>"
    processor = own_processor(folder)
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": text}]}], add_generation_prompt=True
    )
    if not isinstance(shown[0], str):
        prompt = prompt.replace("\n<image>", "<image>", 1)
    images = [piece for piece in shown if not isinstance(piece, str)] or None
    return [int(token_id) for token_id in processor(text=prompt, images=images)["input_ids"][0]]


def assert_same(family: Any, folder: Path, prompt: Prompt, shown: Sequence[Piece]) -> None:
    ours, own = prompt.ids.tolist(), theirs(folder, shown)
    if folder.name == "llava_onevision":
        # Whether an image becomes tiles depends there on how many there are.
        ours, own = (_one_each(ids, family._image_token.id) for ids in (ours, own))
    assert ours == own, (family.text.read(ours), family.text.read(own))


def _one_each(ids: list[int], token: int) -> list[int]:
    """Ids in which each image is one token; several side by side are one too."""
    return [
        item_id
        for item_id, run in groupby(ids)
        for item_id in ([item_id] if item_id == token else list(run))
    ]


def every_question() -> Iterator[tuple[ScorerParams, Framing]]:
    """Each framing of each method as a scorer asks it: swapped, mirrored, of ties."""
    for method in METHODS.values():
        for rule in method.framings:
            score = {"label": "margin_2way", "number": "number", "index": "listwise"}
            params = ScorerParams(
                method=method.name,
                framing=rule.name,
                score=score[rule.asks_for],
                debias="swap" if rule.name in method.swapped else "none",
                symmetrise=rule.asks_for == "label",
                enhancement=EnhancementParams(trigger="never"),
            )
            for entry in (*framings_of(params), tie_framing(params)):
                if entry is not None:
                    yield params, entry


def test_every_framing_and_kind_of_pair_is_tokenised_as_by_the_processor(
    family: Any, folder: Path
) -> None:
    for _, rule in every_question():
        for query_kinds, item_kinds in rule.templates:
            query = content(query_kinds, PADDED, IMAGES[0])
            item = content(item_kinds, PLAIN, *IMAGES[1:])
            rendered = rule.render(content_of(query), content_of(item))
            sides = {"query": query, "candidate": item}
            prefix, suffix = (
                pieces(some, sides, {})  # type: ignore[arg-type]
                for some in (rendered.prefix, rendered.suffix)
            )
            made = prepare(family, PixelLimits(), [Group(prefix=prefix, suffixes=(suffix,))])
            assert_same(family, folder, made.prompts[0], (*prefix, *suffix))


def test_scorers_of_every_method_ask_what_the_processor_would(family: Any, folder: Path) -> None:
    """Through the scorers themselves, several candidates behind one query."""
    image, text = frozenset[PartKind]({"image"}), frozenset[PartKind]({"text"})
    for params, rule in every_question():
        kinds = (image, image) if params.method == "indexmllm" else (text, text)
        if rule is not framings_of(params)[0]:
            continue
        query = content(kinds[0], PADDED, IMAGES[0])
        items = [
            content(kinds[1], words, entry) for words, entry in zip("ab", IMAGES, strict=False)
        ]
        scorer: Any = bind(family, params, "test")
        side = rule.shared_side(*kinds)
        if side == "candidate":
            query, items = items[0], [query, content(kinds[0], PLAIN, IMAGES[2])]
        prepared = scorer.prepare([PairGroup(shared_side=side, shared=query, others=(*items,))])
        ids = {tuple(entry.ids.tolist()) for entry in prepared.groups.prompts}

        ends = family.with_labels(rule.labels.words).turn.tail[len(family.turn.tail) :]
        if params.score == "listwise":
            listed = ItemContent(texts=tuple(text for entry in items for text in entry.texts))
            items = [listed]
        for item in items:
            pair = (query, item) if side == "query" else (item, query)
            made = rule.render(content_of(pair[0]), content_of(pair[1]))
            sides: Any = dict(zip(("query", "candidate"), pair, strict=True))
            shown = pieces((*made.prefix, *made.suffix), sides, {})
            if folder.name == "llava_onevision" and params.method == "indexmllm":
                continue  # above
            requested = ends if params.score != "number" else ()
            assert (*theirs(folder, shown), *requested) in ids


def test_embedders_and_answers_ask_what_the_processor_would(family: Any, folder: Path) -> None:
    facts = describe_embedder(f"freeret:{folder}@float32")
    for task, prompt, kinds in product(TASKS, ("e5v", "full"), KINDS):
        params = EmbedderParams(task=task, prompt=prompt)  # type: ignore[arg-type]
        embedder = FreeRetEmbedder(family, params, facts)
        item = content(kinds, PADDED, IMAGES[1])
        prepared: Any = embedder.prepare([item], "query")
        requested = "\n".join(item.texts) + instruction(params, "query", kinds)
        assert_same(family, folder, prepared.prompts.prompts[0], (*item.images, requested))
    answerer = Answerer(family, PixelLimits())
    for query_kinds, item_kinds in product(KINDS, KINDS):
        query = content(query_kinds, PADDED, IMAGES[0])
        items = [
            content(item_kinds, words, image) for words, image in zip("xy", IMAGES[1:], strict=True)
        ]
        made = answerer._prepare([Question(query=query, results=tuple(items))])
        parts = [[*entry.images, *entry.texts] for entry in (query, *items)]
        shown = [entry for entry in answer_prompt(parts[0], parts[1:]) if entry != ""]
        assert_same(family, folder, made.prompts[0], shown)


def test_a_prefix_is_shared_up_to_where_a_token_crosses_its_end(family: Any, folder: Path) -> None:
    words = ("a red square", " a", "", "\n\nb")
    for prefix in ((), ("Is it", IMAGES[0], "Is"), (IMAGES[1], "the caption: "), ("co",)):
        group = Group(prefix=prefix, suffixes=tuple((word, "? True") for word in words))
        made = prepare(family, PixelLimits(), [group])
        for prompt, word in zip(made.prompts, words, strict=True):
            assert_same(family, folder, prompt, (*prefix, word, "? True"))
        (of_group,) = made.groups
        assert all(len(suffix.ids) for suffix in of_group.suffixes)
        shown = [word for word in prefix if not isinstance(word, str)]
        assert len(of_group.prefix.images) == len(shown)
        assert len(of_group.prefix.ids) >= len(prefix)


# What the tokenizer adds.


@pytest.mark.parametrize("written", [False, True], ids=["added", "written by the template"])
def test_a_bos_stands_at_the_beginning_exactly_once(tmp_path: Path, written: bool) -> None:
    folder = save_family("internvl", tmp_path / "internvl", n_layers=2)
    plain = loaded("internvl", folder)
    processor = deepcopy(plain._processor)
    bos = processor.tokenizer.bos_token = "<|endoftext|>"
    token = processor.tokenizer.convert_tokens_to_ids(bos)
    processor.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, token)]
    )
    if written:
        processor.chat_template = "{{ bos_token }}" + processor.chat_template
    family = type(plain)(plain._model, processor, "some/model")

    for shown in (("red",), (IMAGES[0], "red"), (" red", IMAGES[0], IMAGES[1], "blue ")):
        made = prepare(family, PixelLimits(), [Group(prefix=shown[:1], suffixes=(shown[1:],))])
        said = [
            {"type": "text", "text": item}
            if isinstance(item, str)
            else {"type": "image", "image": item}
            for item in shown
        ]
        own = processor.apply_chat_template(
            [{"role": "user", "content": said}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
        )["input_ids"][0]
        ids = made.prompts[0].ids.tolist()
        assert ids == own
        assert (ids[0], ids.count(token)) == (token, 1)


@pytest.mark.parametrize("legacy", [False, True], ids=["before the first text", "before each"])
def test_a_label_is_what_stands_behind_the_prompt_s_last_words(legacy: bool) -> None:
    """Llama's tokenizer puts a sign before a text: before the answer's there is none."""
    own = sentencepiece(legacy=legacy)
    encoder = TextEncoder(own, "some/model")
    encoder.answer_behind = "assistant\n"

    assert own.convert_ids_to_tokens([encoder.label("A")]) == ["A"]


# Texts cut anywhere.


def sentencepiece(*, legacy: bool) -> PreTrainedTokenizerFast:
    """Llama's way: a sign before the first text of a prompt, or before each."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    if legacy:
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    letters = [chr(number) for number in range(33, 127)]
    trainer = BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "[INST]", "[/INST]"],
        initial_alphabet=[*letters, "▁", "\n"],
        show_progress=False,
    )
    backend.train_from_iterator(
        [number for text in corpus() for number in text.split("\n")], trainer
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=["[INST]"])


def swallowing() -> PreTrainedTokenizerFast:
    """One whose control tokens take the spaces beside them."""
    own = qwen_tokenizer()
    own.add_special_tokens(
        {
            "additional_special_tokens": [
                AddedToken("<|user|>", rstrip=True, special=True, normalized=False),
                AddedToken("<|stop|>", lstrip=True, special=True, normalized=False),
            ]
        }
    )
    return own


TOKENIZERS = {
    "qwen": (qwen_tokenizer, "<|im_start|>user: ", "<|im_end|>"),
    "text before the first": (lambda: sentencepiece(legacy=False), "USER: ", "[/INST]"),
    "first": (lambda: sentencepiece(legacy=False), "[INST] ", "[/INST]"),
    "each": (lambda: sentencepiece(legacy=True), "[INST] ", "[/INST]"),
    "swallows": (swallowing, "<|user|>", "<|stop|>"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts_cut_anywhere_are_tokenised_as_the_whole(name: str) -> None:
    build, head, end = TOKENIZERS[name]
    own = build()
    encoder = TextEncoder(own, name)
    letters = st.text(alphabet=" ab:<1\nred", max_size=6)

    @settings(deadline=None, max_examples=60)
    @given(letters, st.lists(letters, min_size=1, max_size=3))
    def cut(begun: str, rests: list[str]) -> None:
        written, tail = encoder.trusted(head), encoder.trusted(end)
        shared, ends = encoder.cut(
            (), (*written, begun), [(*written, begun, rest, *tail) for rest in rests]
        )
        for rest, ids in zip(rests, ends, strict=True):
            complete = own(head + begun + rest + end, add_special_tokens=False)["input_ids"]
            assert shared + ids == complete
            assert ids

    cut()


# Fingerprints.

#: As release 0.1 had them, of a scorer's card without its weights: RetLLM by default, as its paper
#: has it and list-wise; FreeRet; IndexMLLM by `object` and `product`; then FreeRet's embedder, and
#: the vision tower. A dot where prompts are others now.
KEPT = {
    "gemma3": "415e6ea8a32df996 . . . . . . ee65905f31a761fe",
    "idefics3": "3fa7d0768415d34f . ae081e12a70be2a8 fb2a52bb918e2c6c d86b8ac0582df15f "
    "1097f629ad1d6fef . 9eada1490d307b0b",
    "internvl": "9721acfacea93bda 05f24b8e39132e14 2747c4d58b98fee8 107057ab0a302d86 "
    "cc0933f9599f4259 19fc2188b7c4f064 35b9cd0c392dd138 cfe3930096f4012f",
    "qwen2_5_vl": "270f7e81b3886bdd 19edd5e22bc5a6ab 067952dc4ccee8a6 e55da725f77da922 "
    "75f1d91f0110a287 42c29d18b6046a6d ebbf12bbdd0c8253 4c12062b17782c14",
    "qwen2_vl": "3de8d5962df6c305 d57f5b489dea4963 e237d50c136e51a9 250659160ad41e17 "
    "010600bc00a72134 38b4781dd4600f15 6298e3c34138a9bc 5f3edefa236d8d08",
    "qwen3_vl": "1a5a0a5b1924e00c c1cb7775293db775 90a88e7483f7b742 d95209c07d08f84d "
    "415037471dfd9f17 25543a5004ada078 dadfbff5a4b39d86 4e7e303d7722fe5b",
    "qwen3_vl_moe": "2df94dd12d861edc e0edc891b7cc12d5 1c4a95a9f361d757 8de17cfe7fbb0192 "
    "28c13f3cc23babfa 3cb0c41de94bd5b8 4c444a9ae765a913 1ef33c6150d64a93",
    "llava_onevision": ". . . . . . . e7e1348452f98338",
    "smolvlm": "e7b2e7ffdeae814d . 80fde1477637a3fa f3b4ada7726cf52b e643aa589fdfaf17 "
    "7a58615dcfdebe54 . 82ab7e417b89dec6",
}
PARAMS = (
    ScorerParams(),
    ScorerParams(
        preset="paper",
        framing="retllm_number",
        score="number",
        enhancement=EnhancementParams(alpha=0.3, norm_match="sequence"),
    ),
    ScorerParams(framing="retllm_listwise", score="listwise"),
    ScorerParams(
        method="freeret", framing="freeret", debias="swap", symmetrise=True, enhancement=OFF
    ),
    ScorerParams(method="indexmllm", framing="object", codec="int8", enhancement=OFF),
    ScorerParams(method="indexmllm", framing="product", min_pixels=3136),
)


def test_only_models_whose_prompts_changed_have_other_fingerprints(folder: Path) -> None:
    spec = f"{folder}@float32"
    cards = [describe_scorer(f"hf:{spec}", param).card for param in PARAMS]
    cards.append(describe_embedder(f"freeret:{spec}").card)
    cards.append(describe_vision(f"hf:{spec}", max_pixels=50176).card)
    # Weights and files are random here; how images are decoded is recorded as a number of its own.
    rest = {"files": {}, "weights": ""}
    results = [
        fingerprint(
            {**{k: v for k, v in card.items() if k not in {"decoding", "rendering"}}, **rest}
            | ({"vision": ""} if "vision" in card else {})
        )
        for card in cards
    ]

    for card, name, kept in zip(cards, results, KEPT[folder.name].split(), strict=True):
        assert ("rendering" in card) is (kept == ".")
        if kept != ".":
            assert name == kept


@pytest.mark.parametrize(("decoder", "changed"), [("qwen2", False), ("llama", True)])
def test_internvl_counts_as_changed_where_its_decoder_s_tokenizer_adds_a_bos(
    tmp_path: Path, decoder: str, changed: bool
) -> None:
    folder = save_family(
        "internvl", tmp_path / "x", n_layers=2, text_config={"model_type": decoder}
    )

    assert ("rendering" in describe_scorer(f"hf:{folder}", ScorerParams()).card) is changed
