"""A hub that cannot be reached costs one message, at once."""

import socket
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from nightshift.models.checkpoints import hub
from nightshift.models.checkpoints.describe import describe_embedder, describe_scorer
from nightshift.schema.errors import ModelError
from nightshift.schema.params import ScorerParams


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes calls and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(params=["refused", "unknown", "silent"])
def no_hub(
    request: pytest.FixtureRequest,
    silent: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    address = {
        "refused": "http://127.0.0.1:9",
        "unknown": "https://nowhere.invalid",
        "silent": silent,
    }[request.param]
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(hub, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(hub, "_last_answer", [])
    # Once would be too often: each of them waits longer than the one before.
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it tries again"))
    return address


def test_without_a_network_the_model_and_what_to_do_are_named(no_hub: str) -> None:
    with pytest.raises(ModelError) as refused:
        describe_scorer("hf:org/model", ScorerParams())
    with pytest.raises(ModelError) as embedder:
        describe_embedder("open_clip:hf-hub:org/clip")

    for said, model in ((refused.value.message, "org/model"), (embedder.value.message, "org/clip")):
        assert said.startswith(model)
        assert no_hub in said
        for remedy in ("model's directory", "HF_HUB_OFFLINE", "cache"):
            assert remedy in said
        assert "\n" not in said


def test_the_weights_of_a_tag_say_so_too(no_hub: str) -> None:
    with pytest.raises(ModelError, match=r"RN50/openai are not in the cache.*cannot be|does not"):
        describe_embedder("open_clip:RN50/openai")
