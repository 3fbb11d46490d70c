"""Import a catalogue, index it, re-rank it and measure the result, from Python alone.

The services, a dispatcher and a worker must run: `nightshift up` starts them. Without arguments the
script draws a small catalogue of shapes and uses the models that come with Nightshift:

    python examples/rerank_from_python.py
    python examples/rerank_from_python.py --source photos/ --queries queries.jsonl \
        --qrels qrels.txt --embedder open_clip:ViT-B-32/laion2b_s34b_b79k --scorer ./my-mllm
"""

import argparse
import tempfile
from pathlib import Path

from nightshift import api
from nightshift.demo import coarse_dir, scorer_dir, write_catalogue


def main() -> None:
    """Do one whole run and print what came of it."""
    options = read_options()
    with api.connect() as ns:
        summary = ns.import_catalog(options.catalog, options.source)
        print(f"imported {summary.read} items")

        index_run = ns.build_index(
            api.IndexRequest(catalog=options.catalog, embedder=options.embedder)
        )
        ns.wait(index_run).require_done()

        request = api.RerankRequest(
            catalog=options.catalog,
            queries=options.queries,
            qrels=options.qrels,
            scorer=options.scorer,
            method="retllm",
            top_k=5,
        )
        run = ns.rerank(request)
        ns.wait(run).require_done()

        for row in ns.results(run, limit=5):
            print(f"{row.query}: {row.final_rank}. {row.item} (before: {row.coarse_rank})")
        print(f"{ns.results(run).to_arrow().num_rows} rows, run {run.run_id}")
        if options.qrels:
            measured = ns.evaluate(run)
            before, after = measured.coarse["recall@1"], measured.fine["recall@1"]
            print(f"recall@1 {before:.3f} before and {after:.3f} after fine scoring")
        print(f"{ns.calibration(run).n_scored} pairs scored")
        print(f"wrote {ns.report(run, options.report)}")


def read_options() -> argparse.Namespace:
    """The command line; sources that are not given are drawn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--catalog", default="from-python")
    parser.add_argument("--source", help="folder, JSONL, CSV, Parquet or WebDataset")
    parser.add_argument("--queries", help="file of queries")
    parser.add_argument("--qrels", help="file of relevance judgements")
    parser.add_argument("--embedder", default=f"open_clip:{coarse_dir()}")
    parser.add_argument("--scorer", default=f"hf:{scorer_dir()}")
    parser.add_argument("--report", default="report.html")
    options = parser.parse_args()
    if options.source is None:
        folder = Path(tempfile.mkdtemp())
        write_catalogue(folder, items=96, queries=12)
        options.source = str(folder / "items.jsonl")
        options.queries = str(folder / "queries-text.jsonl")
        options.qrels = str(folder / "qrels-text-image.txt")
    elif options.queries is None:
        parser.error("--source needs --queries")
    return options


if __name__ == "__main__":
    main()
