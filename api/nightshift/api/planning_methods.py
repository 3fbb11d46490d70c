"""The methods of a client that begin work: imports and runs."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from nightshift.api.connection import HasRunId, ServiceConnection, run_id_of
from nightshift.api.services import open_vectors

if TYPE_CHECKING:
    from nightshift.api.reranking import PlannedRerank, RerankPreview
    from nightshift.producers.catalog_import import ImportSummary
    from nightshift.producers.estimate_tokens import Projection
    from nightshift.producers.import_limits import ImportLimits
    from nightshift.producers.plan_answers import PlannedAnswers
    from nightshift.producers.plan_index import PlannedRun
    from nightshift.producers.plan_tokens import PlannedTokens
    from nightshift.producers.requests import IndexRequest, RerankRequest, TokenRequest
    from nightshift.producers.row_checks import Verify
    from nightshift.producers.sources import FieldNames

__all__ = ["PlanningMethods"]


class PlanningMethods(ServiceConnection):
    """Imports, index runs, token runs, re-ranking runs and answers."""

    def import_catalog(
        self,
        name: str,
        source: str,
        *,
        mapping: "FieldNames | None" = None,
        verify: "Verify" = "changed",
        limits: "ImportLimits | None" = None,
        progress: "Callable[[ImportSummary], None] | None" = None,
    ) -> "ImportSummary":
        """Read a source into a catalogue; a row that cannot be read is recorded with its reason.

        Args:
            name: The catalogue, made where there is none of that name.
            source: Folder of images, `.jsonl`, `.csv`, `.parquet`, WebDataset `.tar`, or a
                pattern; a path or an fsspec URL.
            mapping: Names of fields that are not called `id`, `text`, `image` or `parts`.
            verify: The local images to decode now, so that a broken one fails here: those that are
                new or `changed` since an import read them, `always` all, or `never` any.
            limits: When the import is refused; also turns on pruning.
            progress: Called after each batch of rows.

        Returns:
            Counts of the rows that were read, accepted, unchanged and failed.

        Example:
            >>> ns.import_catalog("shop", "photos/").accepted
            2048

        Raises:
            NotFoundError: There is no such source.
            ConfigurationError: Its format is not known.
            ConflictError: A newer import of this catalogue has begun.
        """
        from nightshift.producers.catalog_import import import_catalog
        from nightshift.stores.files.blobs import BlobStore

        return import_catalog(
            self.database,
            name,
            source,
            mapping=mapping,
            verify=verify,
            blobs=BlobStore(self.settings.data_dir / "blobs"),
            image_roots=self.settings.image_roots,
            limits=limits,
            progress=progress,
        )

    def build_index(self, request: "IndexRequest") -> "PlannedRun":
        """Begin a run that embeds the items that an index of a catalogue lacks.

        Example:
            >>> embedder = "open_clip:ViT-B-32/laion2b_s34b_b79k"
            >>> run = ns.build_index(api.IndexRequest(catalog="shop", embedder=embedder))
            >>> ns.wait(run).state
            <RunState.DONE: 'done'>

        Raises:
            NotFoundError: The catalogue or a needed token set does not exist.
            ConflictError: No item has the parts that the embedder is to see.
            ConfigurationError: The request has a value that is not allowed.
            ModelError: No worker could load the embedder.
        """
        from nightshift.api import indexing

        with open_vectors(self.settings) as vectors:
            return indexing.plan(self.database, vectors, request)

    def build_tokens(self, request: "TokenRequest") -> "PlannedTokens":
        """Begin a run that computes and stores the visual tokens of a catalogue's images.

        Example:
            >>> request = api.TokenRequest(catalog="shop", scorer="./my-mllm", codec="sample2")
            >>> ns.build_tokens(request).items
            2048

        Raises:
            NotFoundError: The catalogue does not exist.
            ConflictError: It has no images, or its tokens are stored elsewhere.
            ConfigurationError: The request has a value that is not allowed, or the tokens would
                take more than `max_bytes`.
            ModelError: No worker could load the scorer's vision tower.
        """
        from nightshift.api import token_building

        return token_building.plan(self.database, self.settings, request)

    def compare_codecs(self, request: "TokenRequest") -> "list[Projection]":
        """Estimate the bytes of the requested codec, which comes first, and of others.

        Example:
            >>> [(row.codec, row.bytes) for row in ns.compare_codecs(request)][:2]
            [('sample2', 41943040), ('none', 167772160)]

        Raises:
            ConflictError: The catalogue has no image that can be read.
        """
        from nightshift.api import token_building

        return token_building.compare_codecs(self.database, request)

    def rerank(self, request: "RerankRequest") -> "PlannedRerank":
        """Import a file of queries and begin the run that searches and re-ranks for each of them.

        Example:
            >>> request = api.RerankRequest(
            ...     catalog="shop", queries="queries.jsonl", scorer="hf:Qwen/Qwen2.5-VL-7B-Instruct"
            ... )
            >>> run = ns.rerank(request)
            >>> run.run_id, run.n_queries, run.max_pairs
            (8, 500, 2500)

        Raises:
            NotFoundError: The catalogue, a ready index, a needed token set or the file does not
                exist.
            ConfigurationError: The request contradicts itself or the method.
            ModelError: No worker could load the scorer.
            InputError: No query of the file can be used.
        """
        from nightshift.api import reranking

        return reranking.plan(self.database, self.settings, request)

    def preview_rerank(self, request: "RerankRequest") -> "RerankPreview":
        """Estimate the pairs, the reuse and the time of a run, and keep nothing.

        Example:
            >>> ns.preview_rerank(request).estimate.pairs
            2500

        Raises:
            NotFoundError: As for `rerank`, as are the other errors.
        """
        from nightshift.api import reranking

        return reranking.preview(self.database, self.settings, request)

    def answer(self, run: int | HasRunId, query: str | None = None) -> "PlannedAnswers":
        """Let the scorer answer queries of a done run from their best results.

        Args:
            run: A re-ranking run that is done; it runs again until the answers are there.
            query: Only this query, by its id; all without an answer by default.

        Example:
            >>> ns.answer(8, "q12").n_queries
            1
            >>> ns.wait(8).state
            <RunState.DONE: 'done'>

        Raises:
            NotFoundError: There is no such run or query.
            ConflictError: The run has not ranked all its queries.
        """
        from nightshift.producers.plan_answers import plan_answers

        return plan_answers(self.database, run_id_of(run), query)
