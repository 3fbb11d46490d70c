"""Visual tokens on real parts: made on one night, read on the next in place of pixels."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.nights.night import Night

pytestmark = pytest.mark.night

N_IMAGES = 24


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the catalogue's own, which tests may take away."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def token_night(busy_night: Night, scenes: Path, image_folder: Path, embedder: str) -> Night:
    """A night with an indexed catalogue `few`."""
    rows = []
    for line in (scenes / "items.jsonl").read_text().splitlines()[:N_IMAGES]:
        row = json.loads(line)
        image = image_folder / Path(row["image"]).name
        shutil.copy(scenes / row["image"], image)
        rows.append({"id": row["id"], "image": str(image)})
    source = image_folder.parent / "few.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    busy_night.cli("catalog", "import", "few", str(source), "--json")
    busy_night.cli("index", "build", "few", "--embedder", embedder, "--wait", "--json")
    return busy_night


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """Nobody can read the folder's files."""
    hidden = folder.with_name("away")
    folder.rename(hidden)
    try:
        yield
    finally:
        hidden.rename(folder)


def build(night: Night, scorer: str, *more: str, failed: int = 0) -> dict[str, object]:
    arguments = ("tokens", "build", "few", "--scorer", scorer, "--wait", "--json", *more)
    done = night.cli(*arguments, check=False)
    printed: dict[str, object] = json.loads(done.stdout)
    assert (printed["state"], printed["failed"]) == ("done", failed)
    assert done.returncode == (7 if failed else 0)
    return printed


def rerank(night: Night, scenes: Path, scorer: str, *more: str, queries: str = "text") -> int:
    # What was scored once would be reused.
    night.rows("DELETE FROM score RETURNING 1")
    done = night.cli(
        "rerank", "few", "--queries", str(scenes / f"queries-{queries}.jsonl"), "--scorer", scorer,
        "--top-k", "6", "--wait", "--json", *more,
    )  # fmt: skip
    printed = json.loads(done.stdout)
    assert printed["state"] == "done"
    return int(printed["run_id"])


def ranking(night: Night, run_id: int) -> list[tuple[object, ...]]:
    rows = night.rows(
        "SELECT query, final_rank, item, margin, entropy FROM v_ranking WHERE run_id = :run "
        "ORDER BY query, final_rank",
        run=run_id,
    )
    assert rows
    return rows


def answered(night: Night, scenes: Path, run_id: int) -> dict[str, object]:
    """The answer to the first query of the texts."""
    query = json.loads((scenes / "queries-text.jsonl").read_text().splitlines()[0])["id"]
    done = night.cli("answer", str(run_id), "--query", query, "--json")
    (printed,) = json.loads(done.stdout)
    return {name: printed[name] for name in ("text", "shown", "cited", "n_tokens")}


def failures(night: Night, run_id: int) -> list[tuple[object, ...]]:
    return night.rows(
        "SELECT reason, subject_id, fatal FROM failure WHERE run_id = :run", run=run_id
    )


@pytest.mark.parametrize("method", ["retllm", "freeret"])
def test_a_later_night_reads_tokens_and_scores_the_same_bits_without_any_image(
    token_night: Night, scenes: Path, image_folder: Path, scorer: str, method: str
) -> None:
    night = token_night
    pixels = f"{scorer}@float32"
    limits, store = ("--max-pixels", "3136"), ()
    if method == "freeret":
        limits = ("--max-pixels", "4704", "--min-pixels", "3920")
        # By way of fsspec, as a bucket would be, between processes.
        store = ("--store", f"file://{image_folder.parent}/bucket")
    first = rerank(night, scenes, pixels, "--method", method, *limits)
    from_pixels = ranking(night, first)
    answer = answered(night, scenes, first)

    built = build(night, pixels, *limits, *store)
    with away(image_folder):
        run_id = rerank(night, scenes, pixels, "--method", method, *limits)
        assert answered(night, scenes, run_id) == answer

    assert built["items"] == N_IMAGES
    assert night.rows(
        "SELECT name, amount FROM v_tally WHERE run_id = :r AND name <> 'prefixes' ORDER BY name",
        r=run_id,
    ) == [("pairs", 12 * 6), ("pictures", 0)]
    assert failures(night, run_id) == []
    assert ranking(night, run_id) == from_pixels
    assert str(built["address"]).startswith("file://") is bool(store)
    assert night.cli("tokens", "verify").returncode == 0


def test_only_new_images_are_seen_and_the_size_of_an_image_is_measured(
    token_night: Night, scorer: str
) -> None:
    first = build(token_night, scorer, "--codec", "int8")
    repeated = build(token_night, scorer, "--codec", "int8")
    listed = json.loads(token_night.cli("tokens", "list", "--json").stdout)

    assert (first["items"], repeated["items"]) == (N_IMAGES, 0)
    (results,) = [row for row in listed if row["codec"] == "int8"]
    assert (results["items"], results["stored"], results["images"]) == (
        N_IMAGES,
        N_IMAGES,
        N_IMAGES,
    )
    stored = sum(
        path.stat().st_size for path in Path(str(first["address"])).rglob("*") if path.is_file()
    )
    assert results["bytes"] == stored
    assert results["bytes_per_image"] == stored / N_IMAGES
    for run_id in (first["run_id"], repeated["run_id"]):
        assert "is complete" in token_night.cli("verify", str(run_id)).stdout
        assert "int8 tokens of few" in token_night.cli("run", "show", str(run_id)).stdout


def test_indexmllm_ranks_images_from_a_trained_codec_by_the_fused_score(
    token_night: Night, scenes: Path, image_folder: Path, scorer: str
) -> None:
    night = token_night
    arguments = ("--method", "indexmllm", "--codec", "pq(16,4)")
    early = night.cli(
        "rerank", "few", "--queries", str(scenes / "queries-image.jsonl"), "--scorer", scorer,
        *arguments, check=False,
    )  # fmt: skip
    assert early.returncode == 3
    assert "nightshift tokens build few" in early.stderr

    build(night, scorer, "--codec", "pq(16,4)")
    plain = rerank(night, scenes, scorer, "--method", "indexmllm", queries="image")
    with away(image_folder):
        coded = rerank(night, scenes, scorer, *arguments, queries="image")
    symmetric = rerank(
        night, scenes, scorer, *arguments, "--symmetrise", "--code-queries", queries="image"
    )

    rows = night.rows(
        "SELECT query, final_rank, 0.5 * coarse_score + 0.5 * probability FROM v_ranking "
        "WHERE run_id = :run ORDER BY query, final_rank",
        run=coded,
    )
    fused: dict[object, list[float]] = {}
    for query, _, score in rows:
        fused.setdefault(query, []).append(float(str(score)))
    assert all(scores == sorted(scores, reverse=True) for scores in fused.values())
    margins = [{row[:1] + row[2:4] for row in ranking(night, run)} for run in (plain, coded)]
    assert margins[0] != margins[1]
    assert ranking(night, symmetric) != ranking(night, coded)
    assert failures(night, coded) == []


def test_an_index_of_the_scorer_s_own_model_is_built_from_tokens_without_any_image(
    token_night: Night, scenes: Path, image_folder: Path, scorer: str
) -> None:
    night = token_night

    def candidates_of(name: str, options: str = "") -> list[tuple[object, ...]]:
        embedder = scorer.replace("hf:", "freeret:") + options
        built = night.cli(
            "index", "build", "few", "--embedder", embedder, "--name", name, "--rebuild", "--wait",
            "--json",
        )  # fmt: skip
        assert failures(night, json.loads(built.stdout)["run_id"]) == []
        run_id = rerank(night, scenes, scorer, "--index", name)
        return night.rows(
            "SELECT query_id, coarse_rank, item_id, coarse_score FROM candidate "
            "WHERE run_id = :run ORDER BY 1, 2",
            run=run_id,
        )

    from_pixels = candidates_of("pixels")
    unbuilt = night.cli(
        "index", "build", "few", "--embedder", scorer.replace("hf:", "freeret:") + "?codec=sample2",
        check=False,
    )  # fmt: skip
    build(night, scorer)
    build(night, scorer, "--codec", "pool2")
    build(night, scorer, "--codec", "pq(16,4)")
    with away(image_folder):
        from_tokens = candidates_of("tokens")
        from_fewer = candidates_of("fewer", "?codec=pool2")
        from_codes = candidates_of("codes", "?codec=pq(16,4)")

    assert len(from_pixels) == 12 * 6
    assert from_tokens == from_pixels
    assert from_fewer != from_pixels
    assert from_codes not in (from_pixels, from_fewer)
    assert night.rows(
        "SELECT card->'params'->>'codebook' FROM model JOIN \"index\" i "
        "ON i.embedder_fingerprint = fingerprint WHERE i.name = 'codes'"
    ) == night.rows(
        "SELECT codebook_digest FROM token_set JOIN model ON fingerprint = vision_fingerprint "
        "WHERE codec = 'pq(16,4)' AND card->>'max_pixels' IS NULL"
    )
    assert unbuilt.returncode == 3
    assert "tokens build few" in unbuilt.stderr


def test_a_damaged_shard_is_named_costs_no_result_and_is_made_again(
    token_night: Night, scenes: Path, scorer: str
) -> None:
    night = token_night
    limits = ("--max-pixels", "6272")
    built = build(night, scorer, *limits)
    complete = ranking(night, rerank(night, scenes, scorer, *limits))
    (shard,) = Path(str(built["address"])).glob(f"run-{built['run_id']}/*.tokens")
    shard.write_bytes(shard.read_bytes()[:5000])

    run_id = rerank(night, scenes, scorer, *limits)
    verified = night.cli("tokens", "verify", check=False)
    forgotten = json.loads(night.cli("tokens", "verify", "--forget", "--json").stdout)

    assert ranking(night, run_id) == complete
    assert failures(night, run_id) == [("shard_corrupt", str(shard), False)]
    assert verified.returncode == 7
    assert str(shard) in verified.stdout
    assert (len(forgotten["damaged"]), forgotten["forgotten"]) == (1, N_IMAGES)
    assert build(night, scorer, *limits)["items"] == N_IMAGES
    assert night.cli("tokens", "verify").returncode == 0


def test_a_plan_promises_the_bytes_that_are_then_measured(token_night: Night, scorer: str) -> None:
    night = token_night
    limits = ("--max-pixels", "7840", "--codec", "pool2")
    arguments = ("tokens", "build", "few", "--scorer", scorer, *limits)
    plan = json.loads(night.cli(*arguments, "--plan", "--json").stdout)
    refused = night.cli(*arguments, "--max-bytes", "1000", check=False)

    built = build(night, scorer, *limits)
    (results,) = [
        load
        for load in json.loads(night.cli("tokens", "list", "--json").stdout)
        if load["address"] == built["address"]
    ]

    requested, *others = plan
    assert refused.returncode == 2
    assert "--max-bytes: " in refused.stderr
    assert "over 1,000" in refused.stderr
    assert {load["codec"] for load in others} >= {"none", "int8", "kmeans(70)"}
    # A record has a header beside what its codec promises.
    assert requested["bytes"] < results["bytes"] < requested["bytes"] + 400 * N_IMAGES
    assert requested["bytes_to_add"] == requested["bytes"]


def test_an_image_that_cannot_be_read_is_one_failure(
    token_night: Night, image_folder: Path, scorer: str
) -> None:
    lost = min(image_folder.iterdir())
    content = lost.read_bytes()
    lost.unlink()
    try:
        built = build(token_night, scorer, "--max-pixels", "9408", failed=1)
    finally:
        lost.write_bytes(content)

    run_id = int(str(built["run_id"]))
    ((reason, _, fatal),) = failures(token_night, run_id)
    assert (reason, fatal) == ("image_missing", True)
    assert token_night.cli("verify", str(run_id)).returncode == 0
    assert build(token_night, scorer, "--max-pixels", "9408")["items"] == 1
