"""A report is one file, shows both orders side by side, and trusts nothing that it shows."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import text

from nightshift.results.report import write_report
from nightshift.results.report_data import WinnerChange, load_report
from nightshift.schema.errors import ConfigurationError, ConflictError
from tests.results.ranked import add_reference_run
from tests.stores.ledger_helpers import add_index_run


@pytest.fixture
def run_id(database, tmp_path) -> int:
    images = tmp_path / "images"
    images.mkdir()
    return add_reference_run(database, images)


def test_a_sheet_has_the_heads_of_both_orders(database, run_id):
    report = load_report(database, run_id, n_queries=9)
    first = next(section for section in report.sections if section.id == "q1")

    assert [entry.id for entry in first.coarse] == ["i1", "i2", "i3"]
    assert [entry.id for entry in first.fine] == ["i3", "i2", "i1"]
    assert [entry.relevant for entry in first.fine] == [True, False, False]
    assert first.fine[0].image is not None


def test_queries_are_sorted_by_what_fine_scoring_did_to_the_first_place(database, run_id):
    report = load_report(database, run_id, n_queries=9)

    assert {section.id: section.winner_change for section in report.sections} == {
        "q1": WinnerChange.RAISED,
        "q2": WinnerChange.RAISED,
        "q3": WinnerChange.LOST,
        'q,"4"\t': WinnerChange.SAME,
    }
    assert [section.id for section in report.sections] == ["q1", "q2", "q3", 'q,"4"\t']


def test_a_smaller_sample_has_one_of_each_outcome_the_most_frequent_first(database, run_id):
    ids = [
        [section.id for section in load_report(database, run_id, n_queries=n).sections]
        for n in (1, 2, 3)
    ]

    assert ids == [["q2"], ["q2", "q3"], ["q2", "q3", 'q,"4"\t']]


def test_the_page_loads_nothing_from_elsewhere(database, run_id, tmp_path):
    page = tmp_path / "run.html"

    write_report(database, run_id, page)

    addresses = _Addresses()
    addresses.feed(page.read_text())
    assert addresses.urls
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses.urls)


def test_markup_in_a_catalogue_is_shown_and_not_obeyed(database, run_id, tmp_path):
    """Neither the page nor the image breaks on hostile, empty or foreign texts."""
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE content SET parts = jsonb_build_array(jsonb_build_object("
                "'kind', 'text', 'text', CAST(:hostile AS text)))"
            ),
            {"hostile": "<script>alert(1)</script>\x1b[31m \u0416\u65e5 " + "word" * 200},
        )
        connection.execute(
            text("UPDATE item SET external_id = :hostile WHERE external_id = 'i3'"),
            {"hostile": "\u202egnp.exe\x9b<b>"},
        )

    write_report(database, run_id, tmp_path / "run.html")
    write_report(database, run_id, tmp_path / "run.png")

    page = (tmp_path / "run.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "\\u202egnp.exe\\x9b&lt;b&gt;" in page
    assert not any(sign in page for sign in "\x1b\x9b\u202e")


def test_the_image_is_drawn_without_a_browser(database, run_id, tmp_path):
    path = tmp_path / "run.png"

    write_report(database, run_id, path, n_queries=1)
    with Image.open(path) as entry:
        small = entry.size
    write_report(database, run_id, path, n_queries=2)
    with Image.open(path) as two:
        large = two.size

    assert small[0] == large[0] == 2240
    assert large[1] > small[1]


def test_the_thumbnail_is_in_the_image(database, run_id, tmp_path):
    path = tmp_path / "run.png"

    write_report(database, run_id, path)

    with Image.open(path) as image:
        colours = {colour for _, colour in image.getcolors(1_000_000)}
    assert (0, 128, 128) in colours  # the teal of the catalogue's images


def test_an_image_that_is_gone_leaves_a_gap(database, run_id, tmp_path):
    for image in (tmp_path / "images").iterdir():
        image.unlink()

    write_report(database, run_id, tmp_path / "run.html")

    assert "<img" not in (tmp_path / "run.html").read_text()


def test_another_ending_is_refused(database, run_id, tmp_path):
    with pytest.raises(ConfigurationError, match=r"run\.pdf"):
        write_report(database, run_id, tmp_path / "run.pdf")


def test_a_run_that_ranked_nothing_has_no_report(database, tmp_path):
    run_id = add_reference_run(database)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM ranking"))

    with pytest.raises(ConflictError, match="ranked nothing yet"):
        write_report(database, run_id, tmp_path / "run.html")
    with pytest.raises(ConflictError, match="builds an index"):
        write_report(database, add_index_run(database), Path("run.html"))


class _Addresses(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag not in {"script", "link", "iframe", "object"}
        self.urls += [value for name, value in attrs if name in {"src", "href"}]
