"""Redis through Celery: doorbells in JSON that carry the ids of a run and a job only."""

import redis
from celery import Celery
from celery.exceptions import OperationalError

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.schema.messages import MessageBody
from nightshift.stores.broker.redis_transport import harden

__all__ = ["TASK_NAME", "Broker", "make_celery"]

TASK_NAME = "nightshift.do_job"

#: A doorbell that is not acknowledged for so long is delivered again; the ledger drops the second.
_VISIBILITY_S = 3600


def make_celery(redis_url: str) -> Celery:
    """The Celery application that both ends share: JSON only, late acks, no results."""
    harden()
    app = Celery("nightshift", broker=redis_url)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        # No limit: a worker takes one message at a time anyway, and one whose acknowledgement a
        # restart of Redis swallowed would count against a limit for ever.
        worker_prefetch_multiplier=0,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_S,
            "socket_keepalive": True,
            # A Redis that was frozen, or a network that swallows packets, must not hold a process.
            "socket_timeout": 30,
            "socket_connect_timeout": 10,
            "health_check_interval": 25,
        },
        visibility_timeout=_VISIBILITY_S,
        task_default_queue="rank",
    )
    return app


class Broker:
    """Sends doorbells."""

    def __init__(self, redis_url: str) -> None:
        self._app = make_celery(redis_url)
        self._redis: redis.Redis = redis.Redis.from_url(redis_url, socket_timeout=10)

    def ring(self, queue: str, run_id: int, job_id: int) -> None:
        """Send one doorbell.

        Raises:
            ServiceUnavailableError: When Redis cannot be reached; the job stays queued.
        """
        body = MessageBody(run_id=run_id, job_id=job_id)
        try:
            self._app.send_task(
                TASK_NAME, kwargs=body.model_dump(), queue=queue, retry=False, ignore_result=True
            )
        except (redis.RedisError, OSError, OperationalError) as error:
            raise _unavailable(error) from error

    def waiting(self, queue: str) -> int:
        """Count the doorbells in a queue that no worker has taken yet."""
        try:
            return int(self._redis.llen(queue))
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
        self._redis.close()


def _unavailable(error: BaseException) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"Redis cannot be used: {error}; check that it runs (`nightshift status`)", "redis"
    )
