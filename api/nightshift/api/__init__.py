"""The Python API: `connect`, and a client with one method for each thing that a command does.

Example:
    >>> from nightshift import api
    >>> with api.connect() as ns:
    ...     ns.import_catalog("shop", "photos/")
    ...     embedder = "open_clip:ViT-B-32/laion2b_s34b_b79k"
    ...     ns.wait(ns.build_index(api.IndexRequest(catalog="shop", embedder=embedder)))
    ...     scorer = "hf:Qwen/Qwen2.5-VL-7B-Instruct"
    ...     run = ns.rerank(
    ...         api.RerankRequest(catalog="shop", queries="queries.jsonl", scorer=scorer)
    ...     )
    ...     ns.wait(run).require_done()
    ...     ns.results(run).to_pandas()
"""

from nightshift.api.catalog_methods import CatalogDetails
from nightshift.api.client import Nightshift, connect
from nightshift.api.connection import HasRunId
from nightshift.api.diagnosis import doctor
from nightshift.api.waiting import RunEnd, WaitTimeoutError
from nightshift.producers.requests import IndexRequest, RerankRequest, TokenRequest
from nightshift.schema.settings import Settings

__all__ = [
    "CatalogDetails",
    "HasRunId",
    "IndexRequest",
    "Nightshift",
    "RerankRequest",
    "RunEnd",
    "Settings",
    "TokenRequest",
    "WaitTimeoutError",
    "connect",
    "doctor",
]
