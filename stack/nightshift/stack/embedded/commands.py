"""The command lines of the programs that a stack starts beside its services."""

from dataclasses import dataclass

from nightshift.schema.errors import ConfigurationError

__all__ = ["StackCommands"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackCommands:
    """Commands that start the dispatcher and the workers; the caller of the stack gives them.

    Args:
        dispatcher: Program and arguments; none where the stack starts no dispatcher.
        worker: Program and arguments; none where the stack starts no worker.
    """

    dispatcher: tuple[str, ...] = ()
    worker: tuple[str, ...] = ()

    def require(self, *, dispatcher: bool, worker: bool) -> None:
        """Check that the commands which are needed were given.

        Raises:
            ConfigurationError: When one is missing.
        """
        for part, needed in (("dispatcher", dispatcher), ("worker-1", worker)):
            if needed:
                self.argv(part)

    def argv(self, part: str) -> tuple[str, ...]:
        """The command line of `dispatcher` or of `worker-N`.

        Raises:
            ConfigurationError: When the caller gave none.
        """
        argv = self.worker if part.startswith("worker-") else self.dispatcher
        if not argv:
            raise ConfigurationError(
                f"{part} cannot be started: this stack was opened without a command for it; "
                "give one in StackCommands"
            )
        return argv
