"""Faults that kill a worker, or stop one for longer than its lease."""

import os
import signal
from time import monotonic, sleep

from nightshift.stack.faults.target import FaultTarget

__all__ = ["freeze_worker", "kill_worker"]


def kill_worker(target: FaultTarget) -> str | None:
    """SIGKILL the worker that has held its job for longest, and start it again."""
    for job in target.held_jobs():
        target.stack.kill(job.worker)
        target.stack.up(1, services=())
        return f"killed {job.worker} (pid {job.pid}) with job {job.job_id} in hand"
    return None


def freeze_worker(target: FaultTarget) -> str | None:
    """SIGSTOP a worker until its lease has expired and its job was taken, then let it go on."""
    for job in target.held_jobs():
        start = monotonic()
        os.kill(job.pid, signal.SIGSTOP)
        try:
            while target.is_held(job) and monotonic() - start < 2 * target.lease_s + 30:
                sleep(0.1)
            taken = not target.is_held(job)
        finally:
            os.kill(job.pid, signal.SIGCONT)
        what = f"froze {job.worker} (pid {job.pid}) with job {job.job_id} in hand"
        seconds = monotonic() - start
        if taken:
            return f"{what} for {seconds:.0f} s, until the job was taken from it"
        return f"{what} for {seconds:.0f} s; nobody took the job"
    return None
