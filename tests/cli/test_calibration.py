"""`nightshift calibration` says what the enhancement did: where it acted, and which way."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.scoring.calibration import CalibrationStats
from nightshift.stores.ledger import runs
from nightshift.stores.results.scores import PairScoreRow, write_scores
from tests.results.ranked import add_reference_run

#: (query, item, margin, margin without the enhancement); q1 looks for i3, q2 for i5 and i6.
COMPARED = [
    ("q1", "i3", 4.0, 3.0),
    ("q2", "i5", 5.5, 5.0),
    ("q1", "i1", -2.0, -1.75),
    ("q1", "i2", 0.5, 0.25),
    ("q2", "i4", 6.0, 5.25),
    # Without judgements, not compared, or not fired: not known to have moved.
    ('q,"4"\t', "i1", 1.0, 9.0),
    ("q2", "i6", -1.0, None),
]


@pytest.fixture
def shown(database, database_url, tmp_path):
    """Run the command; what it prints for a program and for a person."""
    run_id = add_reference_run(database)
    environment = {
        "NIGHTSHIFT_DATABASE_URL": database_url,
        "NIGHTSHIFT_DATA_DIR": str(tmp_path / "nothing-here"),
        "COLUMNS": "400",
    }

    def run(compared):
        with database.begin() as connection:
            _give_candidates(connection)
            run = runs.get_run(connection, run_id)
            write_scores(connection, run, [_score(connection, *row) for row in compared])
        words = ["calibration", str(run_id)]
        done = [CliRunner(env=environment).invoke(main, [*words, *o]) for o in (["--json"], [])]
        assert [row.exit_code for row in done] == [0, 0], done
        return json.loads(done[0].stdout), done[1].stdout

    return run


def _give_candidates(connection):
    connection.execute(
        text(
            "INSERT INTO candidate (run_id, query_id, item_id, content_id, coarse_rank, "
            "coarse_score) SELECT run_id, query_id, item_id, 1, coarse_rank, coarse_score "
            "FROM ranking "
            "ON CONFLICT DO NOTHING"
        )
    )


def _score(connection, query, item, margin, plain):
    ids = [
        connection.execute(
            text(f"SELECT id FROM {table} WHERE external_id = :name"), {"name": name}
        ).scalar_one()
        for table, name in (("query", query), ("item", item))
    ]
    return PairScoreRow(
        query_id=ids[0], item_id=ids[1], pair_key=f"{query} {item}".encode(), margin=margin,
        logit_positive=margin, logit_negative=0.0, logsumexp=9.0, entropy=0.1, fired=True,
        fired_layer=7, uncertainty=0.8, plain_margin=plain,
    )  # fmt: skip


def test_gain_on_relevant_pairs_is_shown_beside_the_shift_of_the_others(shown):
    facts, printed = shown(COMPARED)

    assert facts["directionality"] == {
        "relevant": {"pairs": 2, "mean": 0.75},
        "other": {"pairs": 3, "mean": 0.25},
        "difference": 0.5,
    }
    assert "by +0.750 on 2 relevant pairs and by +0.250 on 3 others" in printed
    assert "a difference of +0.500" in printed


@pytest.mark.parametrize("compared", [[], COMPARED[:2], COMPARED[5:]])
def test_without_judged_pairs_of_both_kinds_nothing_is_said_of_a_direction(shown, compared):
    facts, printed = shown(compared)

    assert facts["directionality"] is None
    assert "relevant pairs" not in printed


def test_an_enhancement_that_picks_some_pairs_is_no_static_injection(shown):
    facts, printed = shown([])

    assert facts["firing_rate"] == 0.2
    assert facts["static_injection"] is False
    assert "static injection" not in printed


def test_one_that_fires_on_nearly_every_pair_is_called_a_static_injection(shown, database):
    with database.begin() as connection:
        connection.execute(
            text(
                """UPDATE calibration SET statistics = jsonb_set(statistics, '{fired_by_layer}',
                jsonb_build_object('7', statistics -> 'n_scored'))"""
            )
        )

    facts, printed = shown([])

    assert facts["firing_rate"] == 1.0
    assert facts["static_injection"] is True
    assert "fired on 100.0% of the pairs: it acts as a static injection" in printed


@pytest.mark.parametrize(("n_fired", "static"), [(0, False), (94, False), (95, True), (100, True)])
def test_nearly_every_pair_is_nineteen_of_twenty(n_fired, static):
    stats = CalibrationStats(
        n_scored=100, fired_by_layer={6: n_fired // 2, 7: n_fired - n_fired // 2}
    )

    assert stats.is_static is static


def test_a_run_without_scores_has_no_static_injection():
    assert CalibrationStats().is_static is False


def test_a_gamma_is_measured_that_fires_on_a_share_of_the_pairs(database, database_url, tmp_path):
    run_id = add_reference_run(database)
    recorded = [0.31, 0.72, 0.05, 0.44, 0.44]
    with database.begin() as connection:
        rows = [_score(connection, *pair) for pair in COMPARED[: len(recorded)]]
        examined = [
            replace(row, fired=False, fired_layer=None, plain_margin=None, uncertainty=u)
            for row, u in zip(rows, recorded, strict=True)
        ]
        _give_candidates(connection)
        write_scores(connection, runs.get_run(connection, run_id), examined)
    environment = {"NIGHTSHIFT_DATABASE_URL": database_url, "COLUMNS": "400"}

    def run(share, *words):
        called = ["calibration", str(run_id), "--firing-share", share, *words]
        return CliRunner(env=environment).invoke(main, called)

    printed = json.loads(run("0.2", "--json").stdout)["threshold"]
    assert (printed["share"], printed["n_pairs"]) == (0.2, 5)
    assert printed["gamma"] == pytest.approx((0.72 + 0.44) / 2)
    # Two pairs are equal at the edge: neither is above.
    assert json.loads(run("0.4", "--json").stdout)["threshold"]["share"] == 0.2
    assert json.loads(run("1", "--json").stdout)["threshold"]["share"] == 1.0
    assert "fire on 20.0% of the 5 pairs with --enhancement gamma=0.58" in run("0.2").stdout
    with database.begin() as connection:
        connection.execute(
            text("UPDATE score SET fired = true, fired_layer = 3 WHERE uncertainty > 0.4")
        )
    refused = run("0.2")
    assert refused.exit_code != 0
    assert "--enhancement gamma=1" in refused.stderr
    assert json.loads(run("0.8", "--json").stdout)["threshold"]["share"] == 0.8
