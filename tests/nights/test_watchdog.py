import subprocess
import sys

_HANGING_WORKER = """
import time
from types import SimpleNamespace
from nightshift.schema.messages import BlockPayload
from nightshift.schema.settings import Settings
from nightshift.schema.states import Stage
from nightshift.stores.ledger.claims import Claim
from nightshift.workers.session import open_session

session = open_session(Settings(), stages=frozenset(Stage), device="cpu")
session.start_reporting()
session.in_hand = Claim(
    run=SimpleNamespace(id=1), job_id=1, stage=Stage.SCORE, payload=BlockPayload(ids=(1,)),
    n_units=1, attempt=1, token=1,
)
time.sleep(600)  # a forward that never comes back
"""


def test_a_worker_whose_job_hangs_ends_itself(night):
    environment = night.environment() | {"NIGHTSHIFT_HANG_S": "1"}

    done = subprocess.run(
        [sys.executable, "-c", _HANGING_WORKER],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )

    assert done.returncode == 70, done.stderr
    assert "hangs; ending" in done.stderr
