"""The demo prints rankings that fine scoring mended, and rankings that it did not."""

import io
import sys
from pathlib import Path

import click
import pytest
from rich.console import Console
from sqlalchemy import text

from nightshift.cli.demo_text import print_night, rankings
from nightshift.demo.night import (
    IMAGE_TO_IMAGE,
    IMAGE_TO_TEXT,
    TEXT_TO_IMAGE,
    Enhanced,
    Night,
    Ranked,
    SearchDirection,
)
from nightshift.results.evaluate import evaluate
from tests.results.ranked import add_reference_run


@pytest.fixture
def run_id(database) -> int:
    run_id = add_reference_run(database)
    with database.begin() as connection:  # the demo judges all that it ranks
        judged = "SELECT id FROM query JOIN qrel ON query_external_id = external_id"
        connection.execute(text(f"DELETE FROM ranking WHERE query_id NOT IN ({judged})"))
    return run_id


def test_both_orders_of_a_mended_query_and_of_one_that_lost_stand_side_by_side(database, run_id):
    mended, lost = (printed(table) for table in rankings(database, of_run(database, run_id)))

    assert "text-to-image, query q1, brought to the top text of q1 " in " ".join(mended.split())
    assert rows(mended) == [
        ["1", "text of i1", "✓ text of i3"],
        ["2", "text of i2", "text of i2"],
        ["3", "✓ text of i3", "text of i1"],
    ]
    assert "query q3, lost from the top" in " ".join(lost.split())
    assert rows(lost)[0] == ["1", "✓ text of i2", "text of i7"]


def test_the_first_of_them_can_be_had_alone(database, run_id):
    (only,) = rankings(database, of_run(database, run_id, IMAGE_TO_TEXT), n=1)

    assert "image-to-text, query q1" in printed(only)


@pytest.mark.parametrize(("on_path", "called"), [(True, "nightshift"), (False, "bin/nightshift")])
def test_what_to_try_next_is_said_in_words_that_the_user_s_shell_understands(
    database, run_id, tmp_path, monkeypatch, capsys, on_path, called
):
    program = tmp_path / "bin" / "nightshift"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(program.parent if on_path else tmp_path))
    monkeypatch.setattr(sys, "argv", [str(program) if on_path else "bin/nightshift", "demo"])
    ranked = of_run(database, run_id)
    night = Night(
        items=8, failed=0, text_to_image=ranked, image_to_text=ranked,
        enhanced=Enhanced(ranked=ranked, gamma=0.25, share_before=0.0, share=0.2),
        others=(of_run(database, run_id, IMAGE_TO_IMAGE),),
        import_s=1, index_s=1, rerank_s=1,
    )  # fmt: skip

    with click.Context(click.Command("nightshift"), info_name="nightshift"):
        print_night(database, night, [Path("a.png")], Path("my data"))

    reported = capsys.readouterr().out
    flat = " ".join(reported.split())
    assert "fired on 0.0% of the text-to-image pairs at its published gamma of 0.75" in flat
    assert "With gamma 0.25, chosen from the measured uncertainty, it fired on 20.0% in run" in flat
    # Of five relevant items one can be a fifth at the most: recall@1 would look broken.
    assert "success@1 success@5 mAP@20" in flat
    assert "5 are relevant to each query" in flat
    assert reported.count("query q1") == 2
    assert f"\n  {called} results {run_id} --query text-000 --data-dir 'my data'  " in reported
    assert f"\n  {called} down --data-dir 'my data'  " in reported


def of_run(database, run_id: int, direction: SearchDirection = TEXT_TO_IMAGE) -> Ranked:
    return Ranked(
        direction=direction, method="retllm", run_id=run_id, queries=5, pairs=11,
        evaluation=evaluate(database, run_id),
    )  # fmt: skip


def printed(table) -> str:
    console = Console(width=120, file=io.StringIO())
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.lstrip()[:1].isdigit()]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
