"""The one-word requests of FreeRet's embedder."""

import pytest

from nightshift.schema.params import EmbedderParams
from nightshift.schema.records import PartKind
from nightshift.scoring.methods.freeret_embedding import TASKS, digest, instruction

TEXT: frozenset[PartKind] = frozenset({"text"})
BOTH: frozenset[PartKind] = frozenset({"text", "image"})


def of(**options: str) -> EmbedderParams:
    return EmbedderParams.model_validate(options)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_one_published_example_is_word_for_word() -> None:
    assert flat(instruction(of(task="news"), "query", BOTH)) == (
        "You are required to assess if the news is related to the topic. "
        "Based on Q, output one word: "
        "• Capture the semantics of the image and news. Favor the topic of the news. "
        "• Do not use function words, prepositions, or symbols."
    )
    assert flat(instruction(of(task="news"), "candidate", TEXT)) == (
        "You are required to assess if the news is related to the topic. "
        "Based on sentence, output one word: "
        "• Capture the semantics of the sentence. Favor the topic of the sentence. "
        "• Do not use function words, prepositions, or symbols."
    )


def test_the_older_request_is_word_for_word() -> None:
    assert (
        instruction(of(prompt="e5v"), "candidate", TEXT) == "\n Summary above content in one word:"
    )


def test_each_variant_says_what_the_one_before_says_and_more() -> None:
    grounding, noise, full = (
        instruction(of(prompt=prompt), "candidate", BOTH)
        for prompt in ("grounding", "grounding_noise", "full")
    )

    assert "Capture the semantics of the image and text." in grounding
    assert noise.startswith(grounding)
    assert full.endswith(noise.removeprefix("\n"))
    assert len({grounding, noise, full}) == 3


def test_every_task_of_the_parameters_is_known_and_the_other_way_round() -> None:
    for task in TASKS:
        assert of(task=task).task == task
    with pytest.raises(ValueError, match="task"):
        of(task="nonsense")


@pytest.mark.parametrize("options", [{"task": "news"}, {"prompt": "e5v"}])
def test_another_wording_is_another_digest(options: dict[str, str]) -> None:
    assert digest(of(**options)) != digest(of())
    assert digest(of(site="mlp_L-1")) == digest(of()), "the site says nothing"
