"""Errors cross the queue by pickle and leave the command line as exit codes."""

import pickle

import pytest

from nightshift.schema import errors
from nightshift.schema.errors import InputError, NightshiftError

CLASSES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("error_class", CLASSES)
def test_every_error_survives_pickling_with_its_attributes(error_class):
    error = error_class("what happened and what to do")

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is error_class
    assert str(copy) == "what happened and what to do"
    assert vars(copy) == vars(error)


def test_the_ids_an_error_carries_survive_pickling():
    error = InputError("the image cannot be read", "image_unreadable", "sku-7")

    copy = pickle.loads(pickle.dumps(error))

    assert (copy.reason, copy.subject_id) == ("image_unreadable", "sku-7")


@pytest.mark.parametrize("error_class", CLASSES)
def test_an_error_without_a_message_says_what_its_class_means(error_class):
    assert str(error_class()) == error_class.__doc__


def test_every_error_has_the_one_root():
    assert all(issubclass(error_class, NightshiftError) for error_class in CLASSES)


def test_an_exit_code_of_its_own_is_nobody_elses():
    own = {c: c.exit_code for c in CLASSES if "exit_code" in vars(c)}

    assert len(set(own.values())) == len(own)
    assert all(0 < code < 126 for code in own.values()), "the shell claims 126 and up"
