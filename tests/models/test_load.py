"""Choosing a device and loading onto it."""

import pytest
import torch

from nightshift.models.load import pick_device, release_device_memory
from nightshift.schema.errors import ConfigurationError


def test_the_device_is_the_gpu_where_there_is_one() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="--device"):
        pick_device(name)


def test_releasing_memory_does_not_initialise_cuda() -> None:
    before = torch.cuda.is_initialized()

    release_device_memory()

    assert torch.cuda.is_initialized() == before
