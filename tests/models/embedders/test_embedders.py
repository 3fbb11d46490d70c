"""Embedders: against the upstream libraries, alone and in batches, with bad input."""

import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
import open_clip
import pytest
import sentencepiece
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, SiglipTokenizer

from nightshift.models.cache import ModelCache
from nightshift.models.checkpoints.describe import describe_embedder
from nightshift.models.embedders.protocol import Embedder
from nightshift.models.inputs.content import ItemContent
from nightshift.models.load import load_embedder
from nightshift.schema.errors import InputError, ModelError
from nightshift.scoring.mixing import mix_item, normalise
from nightshift.scoring.prompts import Side
from tests.models.tiny import corpus, random_image

TEXT = ItemContent(texts=("a small red square",))
IMAGE = ItemContent(images=(random_image(1),))
BOTH = ItemContent(texts=("a large blue circle",), images=(random_image(2, (90, 40)),))
LONG = "red " * 40


@pytest.fixture(scope="session", params=["open_clip", "clip", "siglip"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    """Each kind of embedder in turn."""
    folder: Path = request.getfixturevalue(f"{request.param}_folder")
    library = "open_clip" if request.param == "open_clip" else "hf"
    return load_embedder(f"{library}:{folder}", device="cpu")


def embed(embedder: Embedder, *contents: ItemContent, side: Side = "candidate") -> np.ndarray:
    return embedder.embed(embedder.prepare(contents, side)).vectors


def test_every_kind_of_content_becomes_a_unit_vector(embedder: Embedder) -> None:
    vectors = embed(embedder, TEXT, IMAGE, BOTH)

    assert vectors.shape == (3, embedder.dim)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


def test_a_batch_gives_what_single_contents_give(embedder: Embedder) -> None:
    contents = [TEXT, BOTH, IMAGE, BOTH, TEXT]

    together = embed(embedder, *contents)

    separate = np.concatenate([embed(embedder, content) for content in contents])
    assert together == pytest.approx(separate, abs=1e-5)


def test_an_image_prepared_beforehand_gives_the_same_bits(embedder: Embedder) -> None:
    prepared = ItemContent(
        texts=BOTH.texts, images=tuple(embedder.prepare_image(image) for image in BOTH.images)
    )

    assert np.array_equal(embed(embedder, IMAGE, prepared), embed(embedder, IMAGE, BOTH))


def test_text_and_image_are_mixed_by_role(embedder: Embedder) -> None:
    text, image = (ItemContent(texts=BOTH.texts), ItemContent(images=BOTH.images))
    of_text, of_image = embed(embedder, text)[0], embed(embedder, image)[0]

    item, query = embed(embedder, BOTH)[0], embed(embedder, BOTH, side="query")[0]

    assert item == pytest.approx(mix_item(of_image, of_text), abs=1e-5)
    assert not np.allclose(item, query, atol=1e-3)
    # A query lies in the plane of its parts too, wherever their lengths put it.
    plane = np.linalg.lstsq(np.stack([of_text, of_image], 1), query, rcond=None)
    assert plane[0].min() > 0
    assert float(np.ravel(plane[1]).sum()) < 1e-8


def test_several_images_become_their_mean_direction(embedder: Embedder) -> None:
    first, second = random_image(1), random_image(2)
    singles = embed(embedder, ItemContent(images=(first,)), ItemContent(images=(second,)))

    both = embed(embedder, ItemContent(images=(first, second)))[0]

    assert both == pytest.approx(normalise(singles.mean(axis=0)), abs=1e-5)


def test_text_beyond_the_context_is_reported_never_cut_silently(embedder: Embedder) -> None:
    contents = [TEXT, ItemContent(texts=(LONG,)), ItemContent(texts=("a", LONG))]

    vectors = embedder.embed(embedder.prepare(contents, "candidate"))

    assert [(notice.position, notice.reason) for notice in vectors.notices] == [
        (1, "text_truncated"),
        (2, "text_truncated"),
    ]
    assert "of which the model reads 24" in vectors.notices[0].detail
    assert int(vectors.notices[0].detail.split()[0]) > 40


@pytest.mark.parametrize(("words", "reported"), [(22, False), (23, True)])
def test_text_that_just_fits_is_no_notice(embedder: Embedder, words: int, reported: bool) -> None:
    """Two of the 24 tokens are the start and the end of the text."""
    content = ItemContent(texts=(" ".join(["a"] * words),))

    vectors = embedder.embed(embedder.prepare([content], "candidate"))

    assert bool(vectors.notices) == reported


def test_control_tokens_in_a_text_are_text(embedder: Embedder) -> None:
    """Read as control tokens, the first of them would end the text."""
    for control in ("<|endoftext|>", "<end_of_text>", "<END_OF_TEXT>"):
        first, second = (ItemContent(texts=(f"{control} {word}",)) for word in ("red", "blue"))
        vectors = embed(embedder, first, second)

        assert not np.allclose(vectors[0], vectors[1], atol=1e-4)


def test_an_empty_content_is_refused_by_position(embedder: Embedder) -> None:
    with pytest.raises(InputError) as refused:
        embedder.prepare([TEXT, ItemContent()], "candidate")

    assert (refused.value.reason, refused.value.subject_id) == ("empty_content", "1")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_any_mode_and_size_are_embedded(embedder: Embedder, mode: str) -> None:
    tiny = Image.new(mode, (1, 1))
    wide = random_image(3, (300, 2)).convert(mode)

    assert np.isfinite(embed(embedder, ItemContent(images=(tiny, wide)))).all()


def test_threads_may_prepare_at_once(embedder: Embedder) -> None:
    contents = [[ItemContent(texts=(f"red {i} " * (1 + 9 * (i % 2)),))] for i in range(24)]
    separate = [embedder.embed(embedder.prepare(content, "candidate")) for content in contents]
    prepared: dict[int, object] = {}

    def prepare(i: int) -> None:
        prepared[i] = embedder.prepare(contents[i], "candidate")

    threads = [Thread(target=prepare, args=(i,)) for i in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for i, expected in enumerate(separate):
        vectors = embedder.embed(prepared[i])
        assert vectors.vectors == pytest.approx(expected.vectors, abs=1e-6)
        assert vectors.notices == expected.notices


def test_open_clip_agrees_with_the_library(open_clip_folder: Path) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{open_clip_folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{open_clip_folder}")
    model.eval()
    with torch.no_grad():
        text = model.encode_text(tokenizer(list(TEXT.texts)), normalize=True)
        image = model.encode_image(preprocess(IMAGE.images[0])[None], normalize=True)

    vectors = embed(load_embedder(f"open_clip:{open_clip_folder}", device="cpu"), TEXT, IMAGE)

    assert vectors == pytest.approx(torch.cat([text, image]).numpy(), abs=1e-5)


@pytest.mark.parametrize("folder", ["clip_folder", "siglip_folder"])
def test_transformers_embedders_agree_with_the_library(
    folder: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(folder)
    model = AutoModel.from_pretrained(path).eval()
    tokens = AutoTokenizer.from_pretrained(path)(
        list(TEXT.texts), padding="max_length", max_length=24, return_tensors="pt"
    )
    pixels = AutoImageProcessor.from_pretrained(path)(list(IMAGE.images), return_tensors="pt")
    with torch.no_grad():
        joint = model(**tokens, **pixels)
    theirs = torch.cat([joint.text_embeds, joint.image_embeds])

    vectors = embed(load_embedder(f"hf:{path}", device="cpu"), TEXT, IMAGE)

    assert vectors == pytest.approx(normalise(theirs.numpy()), abs=1e-5)


def test_a_checkpoint_may_be_given_as_a_file(tmp_path: Path) -> None:
    """A whole ViT-B-32 is too large for a test; the smallest architecture is not."""
    model = open_clip.create_model("ViT-S-32-alt")
    file = tmp_path / "random.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    model.eval()
    tokens = open_clip.get_tokenizer("ViT-S-32-alt")(list(TEXT.texts))
    with torch.no_grad():
        theirs = model.encode_text(tokens, normalize=True)

    embedder = load_embedder(f"open_clip:ViT-S-32-alt/{file}", device="cpu")

    assert embedder.dim == theirs.shape[1]
    assert embed(embedder, TEXT) == pytest.approx(theirs.numpy(), abs=1e-5)


def test_a_worker_holds_a_checkpoint_given_as_a_file(tmp_path: Path) -> None:
    file = tmp_path / "random.safetensors"
    model = open_clip.create_model("ViT-S-32-alt")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    facts = describe_embedder(f"open_clip:ViT-S-32-alt/{file}")
    models = ModelCache(device="cpu")

    held = models.embedder(facts.spec, facts.fingerprint)

    assert models.embedder(facts.spec, facts.fingerprint) is held
    assert held.dim == facts.dim


def _broken(source: Path, target: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    weights = load_file(source / "model.safetensors")
    weights["visual_projection.weight"] = change(weights["visual_projection.weight"])
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize("change", [torch.zeros_like, lambda w: w * torch.nan, lambda w: w / 0])
def test_a_zero_or_broken_embedding_is_refused_by_position(
    clip_folder: Path, tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    embedder = load_embedder(f"hf:{_broken(clip_folder, tmp_path, change)}", device="cpu")

    with pytest.raises(InputError) as refused:
        embed(embedder, TEXT, IMAGE)

    assert (refused.value.reason, refused.value.subject_id) == ("embedding_not_finite", "1")


def test_weights_that_do_not_fit_their_configuration_are_refused(
    open_clip_folder: Path, tmp_path: Path
) -> None:
    config = (open_clip_folder / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(config.replace('"width": 32', '"width": 64'))
    weights = (open_clip_folder / "open_clip_model.safetensors").read_bytes()
    (tmp_path / "open_clip_model.safetensors").write_bytes(weights)

    with pytest.raises(ModelError, match="cannot be loaded"):
        load_embedder(f"open_clip:{tmp_path}", device="cpu")


def test_siglip_reads_lower_case_whatever_its_tokenizer_does(siglip_folder: Path) -> None:
    embedder = load_embedder(f"hf:{siglip_folder}", device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(siglip_folder)
    cased, lower = (ItemContent(texts=(text,)) for text in ("A Red SQUARE", "a red square"))
    assert tokenizer("A Red")["input_ids"] != tokenizer("a red")["input_ids"], "or it is no test"

    assert np.array_equal(embed(embedder, cased), embed(embedder, lower))


def test_a_tokenizer_of_sentencepiece_is_read_and_its_control_tokens_are_broken_up(
    siglip_folder: Path, tmp_path: Path
) -> None:
    """As the first SigLIP's files name it."""
    folder = shutil.copytree(siglip_folder, tmp_path / "siglip")
    for file in folder.glob("*token*"):
        file.unlink()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_prefix=str(folder / "spiece"),
        vocab_size=120,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    SiglipTokenizer(vocab_file=str(folder / "spiece.model")).save_pretrained(folder)
    embedder = load_embedder(f"hf:{folder}", device="cpu")

    plain, steering = (
        embed(embedder, ItemContent(texts=(text,)))
        for text in ("a red square", "a red </s> square")
    )

    assert np.isfinite(plain).all()
    assert not np.array_equal(plain, steering)
