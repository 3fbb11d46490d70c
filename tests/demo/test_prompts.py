"""The demo scorer is trained on what the methods really ask, word for word."""

import pytest

from nightshift.demo import prompts
from nightshift.demo.prompts import IMAGE, Prompt
from nightshift.schema.params import MethodName
from nightshift.scoring.methods.registry import METHODS, framing
from nightshift.scoring.prompts import Content

TEXT = Content(texts=("a small red circle above a large blue square",))
ONE_IMAGE = Content(n_images=1)
SAID = TEXT.texts[0]


def rendered(name: str, query: Content, candidate: Content) -> str:
    rendered = framing(name).render(query, candidate)
    segments = (*rendered.prefix, *rendered.suffix)
    return "".join(segment if isinstance(segment, str) else IMAGE for segment in segments)


@pytest.mark.parametrize(
    ("method", "query", "candidate", "trained"),
    [
        ("retllm", TEXT, ONE_IMAGE, prompts.retllm(SAID)),
        ("retllm", ONE_IMAGE, TEXT, prompts.retllm(SAID)),
        ("retllm", ONE_IMAGE, ONE_IMAGE, prompts.retllm_pair()),
        ("freeret", TEXT, ONE_IMAGE, prompts.freeret(SAID, IMAGE)),
        ("freeret", ONE_IMAGE, TEXT, prompts.freeret(IMAGE, SAID)),
        ("freeret", ONE_IMAGE, ONE_IMAGE, prompts.freeret(IMAGE, IMAGE)),
        ("indexmllm", ONE_IMAGE, ONE_IMAGE, prompts.indexmllm()),
    ],
)
def test_a_trained_prompt_is_the_one_that_its_method_asks(
    method: MethodName, query: Content, candidate: Content, trained: Prompt
) -> None:
    chosen = METHODS[method].preset(None)
    assert rendered(chosen.framing_for(chosen.score).name, query, candidate) == "".join(trained)


def test_freeret_is_trained_with_the_image_first_too() -> None:
    trained = prompts.freeret_candidate_first(IMAGE, SAID)
    assert rendered("freeret_candidate_first", TEXT, ONE_IMAGE) == "".join(trained)
