"""`nightshift rerank`: what an operator says is what the stored run is asked to do."""

import io
import json
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image
from sqlalchemy import text

from nightshift.cli.main import main
from nightshift.demo import scorer_dir
from nightshift.models.checkpoints.describe import describe_scorer
from nightshift.producers.enhancement_words import parse_enhancement
from nightshift.schema.errors import ConfigurationError
from nightshift.schema.messages import BlockPayload, queue_name
from nightshift.schema.params import EnhancementParams, RerankParams
from nightshift.schema.states import Stage
from nightshift.scoring.methods.retllm import ENHANCEMENTS
from nightshift.stores.index.embeddings import write_embeddings
from nightshift.stores.ledger.jobs import add_jobs
from tests.results.ranked import EMBEDDER, add_reference_run

ON, OFF = ENHANCEMENTS["default"], ENHANCEMENTS["off"]
SCORER = f"hf:{scorer_dir()}"


@pytest.fixture
def rerank(database, settings, tmp_path):
    """Runs the command on a catalogue whose index is ready; nobody works on what it plans."""
    add_reference_run(database)
    with database.begin() as connection:
        connection.execute(text("UPDATE \"index\" SET state = 'ready'"))
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"id": "a", "text": "a teal thing"}\n')
    environment = {
        "NIGHTSHIFT_DATA_DIR": str(tmp_path / "data"),
        "NIGHTSHIFT_DATABASE_URL": settings.database_url.get_secret_value(),
        "NIGHTSHIFT_REDIS_URL": settings.redis_url.get_secret_value(),
        "NIGHTSHIFT_MILVUS_URI": settings.milvus_uri,
        "NIGHTSHIFT_MILVUS_TOKEN": settings.milvus_token.get_secret_value(),
    }
    words = ["rerank", "things", "--queries", str(queries), "--scorer", SCORER]

    def run(*more: str, exit_code: int = 0):
        done = CliRunner(env=environment).invoke(main, [*words, *more])
        assert done.exit_code == exit_code, done.output
        return done

    return run


def _planned(rerank, database, *more):
    """The stored parameters of a run, and the fingerprint of its scorer."""
    run_id = json.loads(rerank(*more, "--json").stdout)["run_id"]
    with database.begin() as connection:
        row = connection.execute(
            text("SELECT params, scorer_fingerprint FROM run WHERE id = :run"), {"run": run_id}
        ).one()
    return RerankParams.model_validate(row.params), row.scorer_fingerprint


def test_a_run_keeps_every_option_of_its_method(rerank, database):
    planned = partial(_planned, rerank, database)

    fused, _ = planned("--framing", "retllm", "--lambda", "0.25", "--quantum", "0.125")
    listed, _ = planned("--score", "listwise", "--list-orders", "3", "--item-parts", "text")
    requested, _ = planned("--method", "freeret", "--framing", "freeret_yes_no")

    assert (fused.scorer.framing, fused.fusion, fused.quantum) == ("retllm", 0.25, 0.125)
    assert (listed.scorer.score, listed.scorer.list_orders) == ("listwise", 3)
    assert (requested.scorer.framing, requested.fusion, requested.quantum) == (
        "freeret_yes_no",
        0,
        0,
    )


def test_what_is_asked_twice_compared_and_bounded_is_stored_too(rerank, database):
    twice, _ = _planned(rerank, database, "--debias", "swap", "--method", "freeret")
    turned, _ = _planned(rerank, database, "--symmetrise", "--method", "indexmllm")
    odds, _ = _planned(rerank, database, "--subtract-prior", "--method", "freeret")
    bounded, _ = _planned(
        rerank, database, "--compare", "0.5", "--min-pixels", "3136", "--max-pixels", "50176"
    )

    assert twice.scorer.debias == "swap"
    assert turned.scorer.symmetrise
    assert odds.scorer.subtract_prior
    assert bounded.compare == 0.5
    assert (bounded.scorer.min_pixels, bounded.scorer.max_pixels) == (3136, 50_176)


def test_a_run_goes_ahead_of_others_and_knows_its_judgements(rerank, database, tmp_path):
    judgements = tmp_path / "qrels.txt"
    judgements.write_text("a 0 item-1 3\n")

    planned = json.loads(rerank("--priority", "2", "--qrels", str(judgements), "--json").stdout)

    with database.begin() as connection:
        run = {"run": planned["run_id"]}
        priority = connection.execute(text("SELECT priority FROM run WHERE id = :run"), run)
        assert priority.scalar_one() == 2
        statement = text(
            "SELECT relevance FROM qrel JOIN run USING (query_set_id) WHERE run.id = :run"
        )
        assert connection.execute(statement, run).scalars().all() == [3]


def test_named_parameters_of_the_enhancement_are_stored_and_name_another_scorer(rerank, database):
    planned = partial(_planned, rerank, database)

    plain, as_before = planned()
    _, said_so = planned("--enhancement", "on")
    ours, another = planned("--enhancement", "alpha=0.2,gamma=0.8")
    paper, _ = planned("--preset", "paper", "--enhancement", "memory=all")

    assert plain.scorer.enhancement == ON
    assert as_before == said_so == describe_scorer(SCORER, plain.scorer).fingerprint
    assert ours.scorer.enhancement == ON.model_copy(update={"alpha": 0.2, "gamma": 0.8})
    assert another != as_before
    assert paper.scorer.enhancement == ENHANCEMENTS["paper"].model_copy(update={"memory": "all"})


def test_what_the_authors_code_does_can_be_asked_for_point_by_point(rerank, database):
    planned = partial(_planned, rerank, database)

    plain, name = planned()
    code, _ = planned("--preset", "code")
    open_ties, _ = planned("--preset", "code", "--tie-guard", "--min-pixels", "784")
    of_query, another = planned("--memory", "query")
    both, same = planned("--memory", "both")
    scaled, _ = planned("--lambda", "0.3", "--fusion-scale", "logit", "--no-tie-guard")
    large, larger = planned("--long-side", "756")

    assert (plain.tie_guard, plain.scorer.min_pixels, plain.fusion_scale) == (True, None, "raw")
    assert (code.tie_guard, code.scorer.min_pixels) == (False, 256 * 28 * 28)
    assert code.scorer.enhancement.window == (5, 16)
    assert (open_ties.tie_guard, open_ties.scorer.min_pixels) == (True, 784)
    assert of_query.scorer.enhancement == ON.model_copy(update={"memory": "query"})
    assert (both, same) == (plain, name)
    assert (scaled.fusion, scaled.fusion_scale, scaled.tie_guard) == (0.3, "logit", False)
    assert large.scorer.long_side == 756
    assert len({name, another, larger}) == 3
    assert (
        "memory twice"
        in rerank("--enhancement", "memory=all", "--memory", "query", exit_code=2).stderr
    )
    asked_again = ("--score", "number", "--lambda", "0.5", "--fusion-scale", "minmax")
    contradiction = rerank(*asked_again, exit_code=2).stderr
    assert "Error: --fusion-scale: " in contradiction
    assert "--quantum 0 or --fusion-scale raw" in contradiction
    assert "--enhancement: " in rerank("--enhancement", "maybe", exit_code=2).stderr


def test_a_dry_run_plans_nothing_and_still_refuses_what_cannot_be(rerank, database):
    refused = rerank("--dry-run", "--enhancement", "alpha=2", exit_code=2)
    estimate = json.loads(rerank("--dry-run", "--enhancement", "alpha=1", "--json").stdout)

    assert "alpha=2" in refused.stderr
    assert (estimate["queries"], estimate["pairs"]) == (1, 0)
    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM run")).scalar_one() == 1


@pytest.fixture
def embedded(database):
    """The number of items that the index holds."""
    with database.begin() as connection:
        ids = [row.id for row in connection.execute(text("SELECT id FROM item ORDER BY id"))]
        keys = [(item_id, f"{item_id:032x}") for item_id in ids]
        write_embeddings(connection, index_id=1, run_id=1, keys=keys)
    return len(ids)


@pytest.mark.parametrize(
    ("words", "groups"),
    [(("--item-parts", "image"), 8), (("--item-parts", "image", "--method", "freeret"), 1)],
)
def test_a_dry_run_counts_the_work_and_judges_the_time_by_earlier_nights(
    rerank, database, embedded, words, groups
):
    words = (*words, "--top-k", "16")
    before = json.loads(rerank(*words, "--dry-run", "--json").stdout)
    run_id = json.loads(rerank(*words, "--json").stdout)["run_id"]
    with database.begin() as connection:
        _add_done_jobs(connection, run_id, units_per_s={Stage.SEARCH: 5, Stage.SCORE: 2})
    for _ in range(4):
        rerank(*words)  # nobody works on these

    after = json.loads(rerank(*words, "--dry-run", "--json").stdout)
    said = rerank(*words, "--dry-run").stdout

    counts = {"not_indexed": 0} | {
        "items": 8,
        "queries": 1,
        "pairs": 8,
        "groups": groups,
        "reused": 0,
    }
    counts["reused_exactly"] = True
    assert before == {**counts, "seconds": None, "failed": 0, "reasons": {}}
    assert after == {**before, "seconds": pytest.approx(1 / 5 + 8 / 2)}
    assert dict(line.split(maxsplit=1) for line in said.splitlines()) == {
        "items": "8",
        "queries": "1, text shown",
        "pairs": "8 at depth 16, image shown",
        "groups": f"{groups} at most, sharing one side of their prompt",
        "reused": "0 pairs (0%) scored by earlier runs",
        "time": "4 s of one worker, at its measured rates",
    }


def test_a_dry_run_keeps_nothing_and_tells_bad_rows(rerank, database, embedded, tmp_path):
    image = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(image, "png")
    rows = {"id": ["a", "b"], "image": [image.getvalue(), b"no image"]}
    pq.write_table(pa.table(rows), tmp_path / "images.parquet")
    words = ("--queries", str(tmp_path / "images.parquet"), "--top-k", "5", "--dry-run")

    before = _row_counts(database)
    said = rerank(*words, exit_code=7).stdout
    printed = json.loads(rerank(*words, "--json", exit_code=7).stdout)
    refused = rerank(*words, "--scorer", str(tmp_path), exit_code=8).stderr

    assert "queries    1, image shown" in said
    assert "time       unknown until these models have run here once" in said
    assert "failed     1 rows (1 image_unreadable), the first: " in said
    assert (printed["pairs"], printed["failed"], printed["reasons"]) == (
        5,
        1,
        {"image_unreadable": 1},
    )
    assert str(tmp_path) in refused
    assert _row_counts(database) == before
    assert not (tmp_path / "data" / "blobs").exists()


def test_a_file_without_a_query_is_refused_in_a_dry_run_too(rerank, database, tmp_path):
    (tmp_path / "empty.jsonl").write_text('{"id": "a", "text": ""}\n')
    before = _row_counts(database)

    done = rerank("--queries", str(tmp_path / "empty.jsonl"), "--dry-run", exit_code=7)

    assert "the text is empty" in done.stderr
    assert _row_counts(database) == before


def _add_done_jobs(connection, run_id, units_per_s):
    """A job of ten units in each stage, done by one worker at that rate."""
    (scorer,) = connection.execute(
        text("SELECT scorer_fingerprint FROM run WHERE id = :run"), {"run": run_id}
    ).one()
    for stage, model in ((Stage.SEARCH, EMBEDDER), (Stage.SCORE, scorer)):
        job = BlockPayload(ids=tuple(range(10)))
        add_jobs(connection, run_id, stage, queue_name(stage, model), [job])
        connection.execute(
            text(
                "UPDATE job SET state = 'done', worker_id = 'w', started_at = now(), "
                "finished_at = now() + make_interval(secs => :took) "
                "WHERE run_id = :run AND stage = :stage"
            ),
            {"run": run_id, "stage": stage.value, "took": 10 / units_per_s[stage]},
        )


def _row_counts(database):
    tables = ("query_set", "query", "qrel", "failure", "run", "model")
    with database.begin() as connection:
        return [connection.execute(text(f"SELECT count(*) FROM {t}")).scalar_one() for t in tables]


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ("on", {"trigger": "entropy"}),
        ("off", {"trigger": "never"}),
        ("5", {"trigger": 5}),
        ("trigger=5", {"trigger": 5}),
        ("5, alpha=0.3", {"trigger": 5, "alpha": 0.3}),
        ("off,alpha=0.3", {"trigger": "never", "alpha": 0.3}),
        ("window=6:16,top_k=4", {"trigger": "entropy", "window": (6.0, 16.0), "top_k": 4}),
        (
            "memory=all,lens_norm=none,activation=identity,norm_match=sequence",
            {
                "trigger": "entropy",
                "memory": "all",
                "lens_norm": "none",
                "activation": "identity",
                "norm_match": "sequence",
            },
        ),
    ],
)
def test_words_change_what_they_name_and_turn_it_on(words, changed):
    assert parse_enhancement(words, OFF) == OFF.model_copy(update=changed)


def test_every_parameter_can_be_named():
    other = EnhancementParams(
        trigger="entropy", alpha=0.5, gamma=0.5, window=(0.25, 0.5), top_k=7, memory="all",
        lens_norm="none", activation="identity", norm_match="sequence",
    )  # fmt: skip
    words = ",".join(
        f"{name}={':'.join(map(str, value)) if name == 'window' else value}"
        for name, value in other.model_dump().items()
    )

    assert all(value != getattr(OFF, name) for name, value in other.model_dump().items())
    assert parse_enhancement(words, OFF) == other


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", "on, off, a layer number"),
        ("maybe", "'maybe'"),
        ("alhpa=0.2", "'alhpa=0.2'; the fields are trigger, alpha, gamma, window"),
        ("alpha=0.2,alpha=0.3", "alpha twice"),
        ("on,off", "trigger twice"),
        ("alpha=2", "alpha=2: "),
        ("alpha=", "alpha=: "),
        ("gamma=inf", "gamma=inf: "),
        ("gamma=nan", "gamma=nan: "),
        ("top_k=1", "top_k=1: "),
        ("memory=text", "memory=text: "),
        ("trigger=now", "trigger=now: "),
        ("window=6", "window=6: write window=LOW:HIGH"),
        ("window=0.6:0.2", "window=0.6:0.2: the bounds of a window"),
    ],
)
def test_a_word_that_cannot_be_is_named(words, named):
    with pytest.raises(ConfigurationError) as refused:
        parse_enhancement(words, ON)

    assert named in str(refused.value)
