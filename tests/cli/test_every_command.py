"""Every command, whatever state its runs and services are in, ends with words and an exit code.

The command tree is walked, so that a new command is tested from its first day.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from nightshift.api import services
from nightshift.cli.main import main
from nightshift.demo import coarse_dir, scorer_dir
from nightshift.schema.messages import BlockPayload
from nightshift.schema.plans import RerankPlan
from nightshift.schema.states import RunState, Stage, SubjectKind
from nightshift.stack import StackState
from nightshift.stores.failures import record_failure
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.jobs import add_jobs
from nightshift.stores.ledger.new_runs import create_rerank_run
from nightshift.stores.postgres.database import Database
from tests.results.ranked import add_reference_run

# Where a command waits for ever.
pytestmark = pytest.mark.timeout(300)

#: Values of arguments and required options, by their names in click.
VALUES = {
    "catalog": "things",
    "name": "things",
    "source": "queries.jsonl",
    "queries": "queries.jsonl",
    "embedder": f"open_clip:{coarse_dir()}",
    "scorer": f"hf:{scorer_dir()}",
    "fault": "kill-redis",
    "keep": "1",
    "older": "1",
    "newer": "1",
    "revision": "1",
}
#: Start services of their own, whatever the settings say; their own tests run them.
STARTING = {"up", "demo"}
#: Run until they are stopped, or wait for a run that nobody works on.
ENDLESS = {"worker", "dispatcher"}
CODES = {0, 1, 2, 3, 4, 5, 6, 7, 8}
UNWANTED = re.compile(
    r"Traceback|SELECT |INSERT |UPDATE |sqlalche\.me|psycopg2|fault of Nightshift"
)


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command that is no group, and of groups that do something themselves."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield (*path, name)


def command_at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        subcommand = command.get_command(click.Context(command), name)
        assert subcommand is not None
        command = subcommand
    return command


def words_of(path: tuple[str, ...], folder: Path, run_id: int = 1) -> list[str]:
    """A command line with everything that the command asks for."""
    words = list(path)
    for parameter in command_at(path).params:
        value = VALUES.get(parameter.name or "")
        if parameter.name == "run_id" and isinstance(parameter, click.Argument):
            value = str(run_id)
        elif isinstance(getattr(parameter, "type", None), click.Path) and parameter.required:
            value = str(folder / f"{'-'.join(path)}.html")
        if not parameter.required:
            continue
        assert value is not None, f"say in VALUES what `{' '.join(path)}` takes as {parameter.name}"
        if isinstance(parameter, click.Option):
            words.append(parameter.opts[0])
        words.append(value)
    return words


COMMANDS = sorted(leaves(main))
OF_RUNS = [path for path in COMMANDS if any(p.name == "run_id" and p.required
                                            for p in command_at(path).params)]  # fmt: skip


def judged(done: Result, words: list[str]) -> Result:
    """The result of a command, which may be any but an unexpected one."""
    assert done.exit_code in CODES, (words, done.output)
    assert not UNWANTED.search(done.output), (words, done.output)
    if done.exit_code not in {0, 5}:
        assert done.output.strip(), words
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("commands")
    (place / "queries.jsonl").write_text('{"id": "a", "text": "a teal thing"}\n')
    return place


@pytest.fixture
def cli(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(services, "_START_S", 0.0)

    def run(words: list[str], **settings: str) -> Result:
        environment = {f"NIGHTSHIFT_{name.upper()}": value for name, value in settings.items()}
        return judged(CliRunner(env=environment).invoke(main, words), words)

    return run


@pytest.fixture(scope="module")
def states(shared_database_url: str) -> dict[str, int]:
    """A run in each state, of one catalogue."""
    with Database(shared_database_url) as database:
        first = add_reference_run(database)
        with database.begin() as connection:
            made = {
                "waiting": _repeat_run(connection, Stage.EMBED),
                "queued": _repeat_run(connection, Stage.SCORE, jobs=True),
                "stuck": _repeat_run(connection, Stage.SCORE, jobs=True, stuck=True),
                "paused": _repeat_run(connection, Stage.SEARCH, jobs=True, end=RunState.PAUSED),
                "cancelled": _repeat_run(
                    connection, Stage.SCORE, jobs=True, end=RunState.CANCELLED
                ),
                "failed": _repeat_run(connection, Stage.EMBED, end=RunState.FAILED),
                "empty": _repeat_run(connection, Stage.RANK, end=RunState.DONE),
            }
            for subject in ("q5", "q1"):
                record_failure(
                    connection, run_id=first, stage="search", subject_kind=SubjectKind.QUERY,
                    subject_id=subject, reason="image_missing", message="put it back",
                )  # fmt: skip
            runs.set_run_state(connection, first, RunState.DONE)
    return {"partly failed": first, **made}


def _repeat_run(connection, stage, *, jobs=False, stuck=False, end=None) -> int:
    """Another run as run 1, without its results."""
    like = runs.get_run(connection, 1)
    run_id = create_rerank_run(
        connection, stage=stage, catalog_id=like.catalog_id, revision=1,
        index_id=like.index_id, query_set_id=like.query_set_id, scorer=like.scorer,
        scorer_fingerprint=like.scorer_fingerprint, params=like.params, plan=RerankPlan(queries=5),
    )  # fmt: skip
    if jobs:
        add_jobs(connection, run_id, stage, "q", [BlockPayload(ids=(1,))])
    if stuck:
        connection.execute(
            text(
                "UPDATE job SET state = 'running', attempt = 1, worker_id = 'gone', "
                "started_at = now() - interval '1 h', lease_until = now() - interval '1 h' "
                "WHERE run_id = :run"
            ),
            {"run": run_id},
        )
    if end is not None:
        runs.set_run_state(connection, run_id, end)
    return run_id


@pytest.mark.parametrize(
    "state",
    ["partly failed", "waiting", "queued", "stuck", "paused", "cancelled", "failed", "empty"],
)
def test_every_command_about_a_run_takes_it_in_every_state(
    cli, folder, shared_database_url, states, state
):
    run_id = states[state]
    waits = state in ("waiting", "queued", "stuck", "paused")
    # The states are those of the other tests too.
    moves = {"pause", "resume", "cancel", "retry-failed"}

    for path in OF_RUNS:
        if (path[-1] == "watch" and waits) or path[-1] in moves:
            continue
        words = words_of(path, folder, run_id)
        cli(words, database_url=shared_database_url, data_dir=str(folder / "none"))
        if any(parameter.name == "as_json" for parameter in command_at(path).params):
            cli([*words, "--json"], database_url=shared_database_url, data_dir=str(folder))


def test_every_command_takes_runs_of_all_states_at_once(cli, folder, shared_database_url, states):
    for path in COMMANDS:
        if path in OF_RUNS or path[0] in {*STARTING, *ENDLESS, "down", "doctor", "drill"}:
            continue
        cli(words_of(path, folder), database_url=shared_database_url, data_dir=str(folder / "none"))


@pytest.mark.parametrize("move", ["pause", "resume", "cancel", "retry-failed"])
def test_every_move_of_a_run_is_made_or_refused_in_words(cli, shared_database_url, states, move):
    for state, run_id in sorted(states.items()):
        before = _state(shared_database_url, run_id)
        done = cli(["run", move, str(run_id)], database_url=shared_database_url)
        assert done.exit_code in {0, 4}, (state, done.output)
        _restore(shared_database_url, before)


def _state(url: str, run_id: int) -> dict[str, object]:
    with Database(url) as database, database.begin() as connection:
        statement = text("SELECT id, state, stage, finished_at FROM run WHERE id = :run")
        return dict(connection.execute(statement, {"run": run_id}).mappings().one())


def _restore(url: str, before: dict[str, object]) -> None:
    with Database(url) as database, database.begin() as connection:
        connection.execute(
            text(
                "UPDATE run SET state = :state, stage = :stage, finished_at = :finished_at "
                "WHERE id = :id"
            ),
            before,
        )


def test_every_command_takes_a_database_without_anything(cli, folder, database_url):
    for path in COMMANDS:
        if path[0] in {*STARTING, *ENDLESS, "down", "doctor", "drill"} or path[-1] == "import":
            continue
        done = cli(words_of(path, folder), database_url=database_url, data_dir=str(folder / "none"))
        if path in OF_RUNS:
            assert done.exit_code == 3, path
            assert "Error: there is no run 1" in done.stderr, path


#: Need no service, or say what they see of them.
LOCAL = {("down",), ("db", "status")}


@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "elsewhere"])
def test_every_command_names_the_service_that_is_down(cli, folder, tmp_path, embedded):
    addresses = {
        "database_url": "postgresql+psycopg2://u:hunter2@127.0.0.1:1/x",
        "redis_url": "redis://:hunter2@127.0.0.1:1/0",
        "milvus_uri": "http://127.0.0.1:1",
    }
    StackState().save(tmp_path)

    for path in COMMANDS:
        if path[0] in {*STARTING, "down", "backup", "restore"}:
            continue
        done = cli(
            words_of(path, folder), data_dir=str(tmp_path), **({} if embedded else addresses)
        )
        assert "hunter2" not in done.output, path
        if path == ("doctor",):
            assert done.exit_code in {1, 6}, done.output
        elif path == ("drill",) and not embedded:
            assert done.exit_code == 2, done.output
        else:
            assert done.exit_code == 6, (path, done.exit_code, done.output)
            assert re.search("(?i)postgres|stopped|died", done.output), (path, done.output)
