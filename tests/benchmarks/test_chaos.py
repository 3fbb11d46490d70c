"""The short form of `python -m benchmarks.chaos`; the long one's figures are in its results."""

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from benchmarks.chaos.compare import Results, compare
from benchmarks.chaos.schedule import draw_kinds
from nightshift.stack.faults import FAULTS

_RANKED: list[tuple[object, ...]] = [("q1", 1, "a", 0.5), ("q1", 2, "b", 0.25)]


@pytest.mark.timeout(1200)
def test_a_night_under_faults_of_every_kind_ends_like_a_calm_one():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--kills", "12", "--seed", "3", "--json"],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=1150,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout)
    assert report["equal"], done.stderr[-4000:]
    assert (report["lost"], report["duplicated"]) == (0, 0)
    assert report["max_abs_diff"] <= 1e-5
    # Near its end a run may hold nothing that a certain kind could strike. On a busy machine it is
    # over sooner, for whoever strikes waits for a core as well.
    assert report["faults"] >= 4
    assert report["faults"] == sum(report["kinds"].values())


def test_thirty_faults_are_of_every_kind():
    for seed in range(20):
        assert set(draw_kinds(Random(seed), 30)) == set(FAULTS)
        assert draw_kinds(Random(seed), 30) == draw_kinds(Random(seed), 30)


def test_what_is_lost_doubled_swapped_or_changed_is_found():
    calm = _results(_RANKED)

    assert compare(calm, _results(_RANKED)).equal
    lost = compare(calm, _results(_RANKED[:1]))
    doubled = compare(calm, _results([*_RANKED, _RANKED[1]]))
    swapped = compare(calm, _results([("q1", 1, "b", 0.25), ("q1", 2, "a", 0.5)]))
    changed = compare(calm, _results([_RANKED[0], ("q1", 2, "b", 0.2501)]))
    nearly = compare(calm, _results([_RANKED[0], ("q1", 2, "b", 0.250001)]))
    uncalibrated = compare(calm, Results(tables=calm.tables, calibration={}, failures=0))
    failed = compare(calm, Results(tables=calm.tables, calibration=calm.calibration, failures=1))

    assert (lost.lost, lost.duplicated, lost.equal) == (1, 0, False)
    assert (doubled.lost, doubled.duplicated, doubled.equal) == (0, 1, False)
    assert (swapped.lost, swapped.duplicated, swapped.equal) == (0, 0, False)
    assert (changed.equal, nearly.equal) == (False, True)
    assert not uncalibrated.equal
    assert not failed.equal


def _results(rankings: list[tuple[object, ...]]) -> Results:
    return Results(tables={"rankings": rankings}, calibration={".queries": 1}, failures=0)
