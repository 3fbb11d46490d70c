"""The prompt holds the search results, and citations are read off the answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.scoring.answering import answer_prompt, cited_results


def test_results_are_numbered_before_the_query_in_their_order() -> None:
    prompt = "".join(answer_prompt(["what is red?"], [["<image>", "a square"], ["a circle"]]))

    assert prompt.startswith(
        "Results of a search, the best first.\n[1] <image>a square\n[2] a circle\n"
        "Query: what is red?\nAnswer the query from these results alone"
    )


@pytest.mark.parametrize(
    ("answer", "places"),
    [
        ("The square [2], and the circle [1].", (1, 0)),
        ("Both [1, 3] are, [3] most.", (0, 2)),
        ("None of them answers it.", ()),
        ("See [0], [4] and [99].", ()),
        ("A red [square] of 2 [m].", ()),
    ],
)
def test_citations_are_results_that_exist_each_once_in_order_of_mention(
    answer: str, places: tuple[int, ...]
) -> None:
    assert cited_results(answer, 3) == places


@given(st.text(), st.integers(0, 9))
def test_whatever_a_model_says_only_results_are_cited(answer: str, n_results: int) -> None:
    citations = cited_results(answer, n_results)

    assert len(set(citations)) == len(citations)
    assert all(0 <= place < n_results for place in citations)
