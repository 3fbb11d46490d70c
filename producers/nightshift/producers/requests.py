"""Requests for runs: the options of `rerank`, `index build` and `tokens build`, as typed values.

None stands for a default that depends on the method, the catalogue or the queries. `resolve` turns
a request into the parameters of a run.
"""

from dataclasses import dataclass
from typing import Literal

from nightshift.schema.params import EnhancementParams, FusionScale, MethodName, ScoreName

__all__ = ["IndexRequest", "PresetName", "RerankRequest", "TokenRequest"]

PresetName = Literal["default", "paper", "code"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRequest:
    """A request to embed the items of a catalogue."""

    catalog: str
    #: Such as `open_clip:ViT-B-32/laion2b_s34b_b79k`, `hf:MODEL` or `freeret:MODEL`.
    embedder: str
    #: Name of the index.
    name: str = "default"
    #: Parts of an item that the embedder sees: `image`, `text` or `text,image`. By default `image`
    #: where any item has an image, else `text`.
    parts: str | None = None
    #: Milvus index type: `FLAT` is exact, `HNSW` is faster on millions of items.
    index_type: str = "FLAT"
    #: Embed all items, in a new version, although the newest version could be continued.
    rebuild: bool = False
    #: From 0, which goes first, to 9.
    priority: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A request to compute and store the visual tokens of a catalogue's images."""

    catalog: str
    #: Such as `hf:Qwen/Qwen2.5-VL-7B-Instruct`, or a local directory.
    scorer: str
    #: What the tokens go through before they are stored, such as `sample2+int8`.
    codec: str = "none"
    #: Folder or fsspec URL for the shards; a folder in the data directory by default.
    store: str | None = None
    #: Limits on the pixels of an image, and what its longer side is scaled to before.
    min_pixels: int | None = None
    max_pixels: int | None = None
    long_side: int | None = None
    #: Refuse the run if it would store more bytes than this.
    max_bytes: int | None = None
    #: From 0, which goes first, to 9.
    priority: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """A request to search an index for every query of a file and to re-rank the candidates."""

    catalog: str
    #: File of queries: JSONL, CSV, Parquet, a folder of images, or an fsspec URL of one.
    queries: str
    #: Such as `hf:Qwen/Qwen2.5-VL-7B-Instruct`, or a local directory.
    scorer: str
    #: File of relevance judgements (TREC, BEIR or JSONL).
    qrels: str | None = None
    #: Name under which the queries are kept; the file's without extensions by default.
    query_set: str | None = None
    #: Name of the index to search; the newest ready one by default.
    index: str | None = None
    #: Embed the items that the index lacks first, as a stage of the same run.
    build_index: bool = False
    method: MethodName = "retllm"
    #: Whose defaults the method begins with; fields given beside it win.
    preset: PresetName | None = None
    #: Candidates of a query that are scored; by default RetLLM 5, FreeRet 50, IndexMLLM 100.
    top_k: int | None = None
    #: Parts that models see: `image`, `text` or `text,image`. Of a query all parts by default; of
    #: an item those that the embedder of the index sees.
    query_parts: str | None = None
    item_parts: str | None = None
    #: What of the model's answer is the score; the preset's by default.
    score: ScoreName | None = None
    #: Orders in which each list is scored; a score is their mean.
    list_orders: int = 1
    #: Name of a prompt of the method; its own by default.
    framing: str | None = None
    #: `swap` scores each pair a second time with the answers exchanged, and takes the mean.
    debias: Literal["none", "swap"] = "none"
    #: Subtract the score of the prompt without query and candidate.
    subtract_prior: bool = False
    #: Score each pair a second time with query and candidate exchanged, and take the mean.
    symmetrise: bool = False
    #: Weight of the coarse score in the final one; the method's by default.
    fusion: float | None = None
    fusion_scale: FusionScale = "raw"
    #: Visual enhancement: `on`, `off`, a layer, or fields such as `alpha=0.2,gamma=0.8` on top of
    #: the preset's.
    enhancement: EnhancementParams | str | None = None
    #: Tokens that the enhancement injects: `query`, `candidate`, `both` (sides) or `all`.
    memory: str | None = None
    #: Scores within one step of this size tie; 0 never ties. The method's by default.
    quantum: float | None = None
    #: Whether entropy decides ties above one half only; the method's by default.
    tie_guard: bool | None = None
    #: Share of the queries that are also scored without the enhancement, for comparison.
    compare: float = 0.1
    #: Show candidates as this codec leaves their visual tokens.
    codec: str = "none"
    #: Show queries through the codec too.
    code_queries: bool = False
    #: Limits on the pixels of an image, and what its longer side is scaled to before.
    min_pixels: int | None = None
    max_pixels: int | None = None
    long_side: int | None = None
    #: From 0, which goes first, to 9.
    priority: int = 5
