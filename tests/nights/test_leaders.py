"""One of several dispatchers leads; when it is frozen the next one does, and it stays that way."""

import os
import signal

from nightshift.stores.postgres.database import Database
from tests.stores.ledger_helpers import add_index_run

_LEADER = (
    "SELECT split_part(holder, ':', 2)::int, token FROM lease "
    "WHERE name = 'dispatcher' AND expires_at > clock_timestamp()"
)


def _led_by(night, process):
    return lambda: (night.rows(_LEADER)[:1] or [(0, 0)])[0][0] == process.pid or None


def test_a_frozen_leader_is_replaced_and_does_not_act_when_it_wakes(night):
    (first,) = night.processes
    night.wait_until(_led_by(night, first), timeout_s=150)
    ((_, token),) = night.rows(_LEADER)
    second = night.dispatcher()
    os.kill(first.pid, signal.SIGSTOP)

    night.wait_until(_led_by(night, second), timeout_s=150)
    with Database(night.settings.database_url.get_secret_value()) as database:
        run_id = add_index_run(database, n_jobs=1)
    rung = "SELECT 1 FROM job WHERE run_id = :r AND sent_at IS NOT NULL"
    night.wait_until(lambda: night.rows(rung, r=run_id) and "rung")
    os.kill(first.pid, signal.SIGCONT)
    night.wait_until(lambda: ("lost the lease" in night.log_of(first) and "noticed") or None)

    assert night.rows(_LEADER) == [(second.pid, token + 1)]
