"""Weights that change while a worker has them in memory: nothing of that job is kept."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from nightshift.demo import coarse_dir
from nightshift.models.checkpoints.describe import describe_embedder
from nightshift.producers.catalog_import import import_catalog
from nightshift.producers.plan_index import plan_index
from nightshift.producers.repair import drop_loads
from nightshift.results.doctor import examine
from nightshift.schema.states import Stage
from nightshift.stores.results import model_loads
from nightshift.workers import embed
from nightshift.workers.do_job import do_job
from nightshift.workers.session import WorkerSession, open_session


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(coarse_dir(), tmp_path / "model"))


@pytest.fixture
def session(settings, database) -> Iterator[WorkerSession]:
    session = open_session(settings, stages=frozenset(Stage), device="cpu")
    yield session
    session.close()


@pytest.fixture
def run_id(model, database, vector_store, tmp_path) -> int:
    rows = tmp_path / "texts.csv"
    rows.write_text("id,text\n1,a red circle\n2,a blue square\n")
    import_catalog(database, "texts", str(rows))
    facts = describe_embedder(f"open_clip:{model}")
    return plan_index(database, vector_store, "texts", embedder=facts, parts="text").run_id


def _weights(model: Path) -> Path:
    (file,) = model.glob("*.safetensors")
    return file


def _overwrite(file: Path, *, keep_times: bool = False) -> None:
    """Other numbers in place, as a download into a directory in use leaves them."""
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(before.st_size // 2)
        stream.write(bytes(64))
    if keep_times:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(file: Path) -> None:
    other = file.with_name("new")
    shutil.copy(file, other)
    other.replace(file)


def _add_a_template(file: Path) -> None:
    file.with_name("chat_template.jinja").write_text("")


def _state(database) -> tuple[str, str | None, int]:
    with database.begin() as connection:
        job = connection.execute(text("SELECT state, error FROM job")).one()
        kept = connection.execute(text("SELECT count(*) FROM embedding")).scalar_one()
    return job.state, job.error, kept


@pytest.mark.parametrize(
    "change",
    [
        _overwrite,
        lambda file: _overwrite(file, keep_times=True),
        _replace,
        lambda file: _overwrite(file.with_name("open_clip_config.json")),
        _add_a_template,
        lambda file: file.unlink(),
    ],
    ids=["in place", "and its time put back", "renamed over", "configuration", "new", "gone"],
)
def test_a_job_during_which_a_file_changes_keeps_nothing(
    change, session, database, run_id, model, monkeypatch
):
    of_records = embed.embed_records

    def change_meanwhile(*arguments, **options):
        done = of_records(*arguments, **options)
        change(_weights(model))
        return done

    monkeypatch.setattr(embed, "embed_records", change_meanwhile)

    do_job(session, run_id, 1)

    state, error, kept = _state(database)
    assert (state, kept) == ("queued", 0)
    assert str(model) in error
    assert "changed while its model was in memory" in error
    assert session.loaded is None


def test_what_is_put_back_is_loaded_again_and_the_job_done(
    session, database, run_id, model, tmp_path, monkeypatch
):
    weights = _weights(model)
    shutil.copy2(weights, tmp_path / "kept")
    of_records = embed.embed_records

    def change_and_put_back(*arguments, **options):
        done = of_records(*arguments, **options)
        _overwrite(weights)
        weights.write_bytes((tmp_path / "kept").read_bytes())
        shutil.copystat(tmp_path / "kept", weights)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(embed, "embed_records", change_and_put_back)
        do_job(session, run_id, 1)
    assert _state(database)[::2] == ("queued", 0)
    with database.begin() as connection:
        connection.execute(text("UPDATE job SET not_before = '-infinity'"))

    do_job(session, run_id, 1)

    assert _state(database)[::2] == ("done", 2)
    with database.begin() as connection:
        loads = connection.execute(text("SELECT id, changed_file FROM model_load ORDER BY id"))
        reported = [tuple(row) for row in loads]
        by_load = connection.execute(text("SELECT DISTINCT load_id FROM embedding")).scalars().all()
    assert reported == [(1, str(weights)), (2, None)]
    assert by_load == [2]


def test_weights_that_changed_between_two_jobs_are_another_model(session, database, run_id, model):
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO job (run_id, id, stage, queue, payload, n_units) "
                "SELECT run_id, 2, stage, queue, payload, n_units FROM job"
            )
        )
    do_job(session, run_id, 1)
    _overwrite(_weights(model))

    do_job(session, run_id, 2)

    with database.begin() as connection:
        first, second = connection.execute(text("SELECT state, error FROM job ORDER BY id"))
    assert first.state == "done"
    assert second.state == "queued"
    assert "has the fingerprint" in second.error


def test_files_that_change_while_they_are_loaded_are_no_model(
    session, database, run_id, model, monkeypatch
):
    from nightshift.models import cache

    load = cache.load_embedder

    def overwritten(*arguments, **options):
        _overwrite(_weights(model))
        return load(*arguments, **options)

    monkeypatch.setattr(cache, "load_embedder", overwritten)

    do_job(session, run_id, 1)

    state, error, kept = _state(database)
    assert (state, kept) == ("queued", 0)
    assert "changed while" in error


def test_what_came_of_a_load_in_doubt_is_found_and_dropped(
    session, database, vector_store, run_id, model, settings
):
    do_job(session, run_id, 1)
    _overwrite(_weights(model))
    do_job(session, run_id, 1)  # a doorbell rung twice: the worker looks at its files all the same

    reported = [
        finding.message
        for finding in examine(database, vector_store, session.redis_url, settings.data_dir)
        if finding.check == "loads"
    ]
    (dropped,) = drop_loads(database, [1])

    assert len(reported) == 1
    assert str(_weights(model)) in reported[0]
    assert "2 vectors" in reported[0]
    assert "--drop-load 1" in reported[0]
    assert "2 vectors deleted" in dropped
    with database.begin() as connection:
        assert not connection.execute(text("SELECT FROM embedding")).all()
        assert model_loads.suspect_loads(connection) == []


def test_a_worker_keeps_nothing_more_of_a_load_that_was_dropped(session, database, run_id):
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO job (run_id, id, stage, queue, payload, n_units) "
                "SELECT run_id, 2, stage, queue, payload, n_units FROM job"
            )
        )
    do_job(session, run_id, 1)
    list(drop_loads(database, [1]))

    do_job(session, run_id, 2)

    with database.begin() as connection:
        error = connection.execute(text("SELECT error FROM job WHERE id = 2")).scalar_one()
        assert not connection.execute(text("SELECT FROM embedding")).all()
        connection.execute(text("UPDATE job SET not_before = '-infinity'"))
    assert "load 1 was dropped" in error
    do_job(session, run_id, 2)
    with database.begin() as connection:
        assert set(connection.execute(text("SELECT load_id FROM embedding")).scalars()) == {2}
