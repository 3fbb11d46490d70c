"""Workers that die, and workers that sleep past their lease."""

import os
import signal
from time import monotonic, sleep

from nightshift.stack.faults.site import Site

__all__ = ["freeze_worker", "kill_worker"]


def kill_worker(site: Site) -> str | None:
    """SIGKILL the worker that has had its job for longest, and start another in its place."""
    for held in site.in_hand():
        site.stack.kill(held.worker)
        site.stack.up(1, services=())
        return f"killed {held.worker} (pid {held.pid}) with job {held.job_id} in hand"
    return None


def freeze_worker(site: Site) -> str | None:
    """SIGSTOP a worker until its job has been taken from it, then let it finish late."""
    for held in site.in_hand():
        start = monotonic()
        os.kill(held.pid, signal.SIGSTOP)
        try:
            while site.holds(held) and monotonic() - start < 2 * site.lease_s + 30:
                sleep(0.1)
            taken = not site.holds(held)
        finally:
            os.kill(held.pid, signal.SIGCONT)
        what = f"froze {held.worker} (pid {held.pid}) with job {held.job_id} in hand"
        seconds = monotonic() - start
        if taken:
            return f"{what} for {seconds:.0f} s, until the job was taken from it"
        return f"{what} for {seconds:.0f} s; nobody took the job"
    return None
