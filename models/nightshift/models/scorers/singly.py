"""Which runs score each pair by itself, for the run to say so: scores are the same, time is not."""

from nightshift.models.engine.enhancement import effective
from nightshift.models.engine.packed.batches import why_whole
from nightshift.models.engine.runtime.report import LoadReport
from nightshift.schema.params import ScorerParams

__all__ = ["why_singly"]


def why_singly(report: LoadReport, params: ScorerParams) -> str | None:
    """Why pairs cannot share what their prompts have in common; None where they do."""
    if params.score == "number":
        return "a score that the model writes has a prompt of its own for each pair"
    return report.not_packed or why_whole(effective(params.enhancement))
