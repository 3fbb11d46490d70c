"""`python -m benchmarks.chaos`: random faults in a live run, and what they cost."""

import json
import logging
import os
from collections import Counter
from random import Random
from time import monotonic

import click

from benchmarks.chaos.compare import compare
from benchmarks.chaos.night import Size, may_mount, spend_night
from benchmarks.chaos.schedule import Schedule, draw_kinds
from nightshift.schema.states import Stage
from nightshift.stack.faults import FAULTS, FaultTarget

_log = logging.getLogger(__name__)

_WORKERS = 3
_CALM_LEASE_S = 60.0
#: Short, so that a frozen worker outsleeps it soon, but not too short for this machine: see `_run`.
_LEAST_LEASE_S = 5.0

#: Of all faults, those that strike while the index is built, and while its images are seen.
_INDEX_SHARE = 0.2
_TOKENS_SHARE = 0.1
#: It needs a run that writes visual tokens.
_OF_TOKENS = "fill-disk"
#: Of the others, by stage. Ranking is over in a moment.
_RERANK_SHARES = {"embed": 0.0, "search": 0.06, "score": 0.92, "rank": 0.02}


@click.command()
@click.option("--kills", default=100, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(kills: int, seed: int, as_json: bool) -> None:
    """Let KILLS random faults strike a night of three workers; compare it with a calm night.

    Progress goes to stderr. Exits with 1 where the two nights differ.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in [name for name in os.environ if name.startswith("NIGHTSHIFT_")]:
        del os.environ[name]
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "NIGHTSHIFT_GRACE_S": "5",
    }
    facts = _run(kills, seed)
    if as_json:
        print(json.dumps(facts))
    else:
        print("\n".join(f"{name:14} {value}" for name, value in facts.items()))
    if not facts["equal"]:
        raise SystemExit(1)


def _run(kills: int, seed: int) -> dict[str, object]:
    start = monotonic()
    # Enough to do that the last fault still finds jobs running.
    size = Size(items=max(160, 4 * kills), queries=max(40, kills), top_k=min(120, max(40, kills)))
    calm = spend_night(size, seed, workers=1, lease_s=_CALM_LEASE_S, disturb=_wait)
    # A worker renews it several times a job, and three of them may share one core.
    lease_s = max(_LEAST_LEASE_S, calm.slowest_job_s)
    schedules = _schedules(kills, seed)
    last = schedules[-1]
    coming = iter(schedules)

    def disturb(target: FaultTarget) -> None:
        schedule = next(coming)
        schedule.disturb(target)
        if schedule is not last:  # what found nothing to strike strikes later
            last.pending += [kind for kind in schedule.pending if kind != _OF_TOKENS]
            schedule.pending.clear()

    stormy = spend_night(size, seed, workers=_WORKERS, lease_s=lease_s, disturb=disturb)
    results = compare(calm.results, stormy.results)
    for difference in results.differences[:20]:
        _log.error("%s", difference)
    kinds = sum((entry.landed for entry in schedules), Counter[str]())
    return {
        "faults": kinds.total(),
        "kinds": {kind: kinds[kind] for kind in FAULTS},
        "lost": results.lost,
        "duplicated": results.duplicated,
        "max_abs_diff": results.max_abs_diff,
        "equal": results.equal,
        "seconds": round(monotonic() - start, 1),
    }


def _schedules(kills: int, seed: int) -> list[Schedule]:
    """The faults of the three runs of a night, in their order."""
    kinds = [kind for kind in FAULTS if kind != _OF_TOKENS or may_mount()]
    if _OF_TOKENS not in kinds:
        _log.warning("no disk is filled: this user may not mount a small one")
    drawn = draw_kinds(Random(seed), kills, kinds)
    disks = [kind for kind in drawn if kind == _OF_TOKENS]
    others = [kind for kind in drawn if kind != _OF_TOKENS]
    n_index, n_tokens = round(_INDEX_SHARE * kills), round(_TOKENS_SHARE * kills)
    return [
        Schedule(pending=others[:n_index], shares={"embed": 1.0}),
        Schedule(pending=disks + others[n_index : n_index + n_tokens], shares={"tokens": 1.0}),
        Schedule(pending=others[n_index + n_tokens :], shares=_RERANK_SHARES),
    ]


def _wait(target: FaultTarget) -> None:
    Schedule(pending=[], shares=dict.fromkeys(Stage, 0.0)).disturb(target)


if __name__ == "__main__":
    main()
