"""RetLLM (Su & Wang, ICASSP 2026, arXiv 2602.22278): fine scoring of retrieved pairs.

For each pair one prefill asks whether the candidate matches, "True or False"; the margin is the
log-odds of the two answers at the last position. While the prompt is read, a layer that leaves the
answer uncertain makes the next one look at the picture again (visual enhancement). The entropy of
the whole vocabulary at the same position breaks ties (`tie_break`). Prompts: methods §1.3.
"""

from types import MappingProxyType

from nightshift.schema.runs import EnhancementParams
from nightshift.scoring.methods.method import Method
from nightshift.scoring.prompts import Framing, Kinds, Labels, Slot, Template

__all__ = ["PRESETS", "RETLLM"]

#: The enhancement as the released code has it, as the paper has it, and as we do by default.
PRESETS = MappingProxyType(
    {
        "default": EnhancementParams(),
        "code": EnhancementParams(
            alpha=0.12, memory="all", lens_norm="none", norm_match="sequence"
        ),
        "paper": EnhancementParams(alpha=0.3, memory="image", norm_match="sequence"),
        "off": EnhancementParams(trigger="never"),
    }
)

_TEXT: Kinds = frozenset({"text"})
_IMAGE: Kinds = frozenset({"image"})
_BOTH: Kinds = frozenset({"text", "image"})
_ANSWER = " Please directly output True or False"
#: Both pictures precede the question; the query's comes first and is shared.
_TWO_PICTURES = ("Query image", Slot.QUERY_IMAGES, "Candidate image")


def _about_one_picture(*, side: Slot, text: Slot) -> Template:
    return Template(
        shared_side="candidate" if side is Slot.CANDIDATE_IMAGES else "query",
        prefix=(side, "Does the image match the caption:"),
        suffix=(" <", text, ">?" + _ANSWER),
        published=True,
    )


_TEMPLATES = {
    (_TEXT, _IMAGE): _about_one_picture(side=Slot.CANDIDATE_IMAGES, text=Slot.QUERY_TEXT),
    # Published for text→image; the paper scores image→text pairs alike, its code list-wise.
    (_IMAGE, _TEXT): _about_one_picture(side=Slot.QUERY_IMAGES, text=Slot.CANDIDATE_TEXT),
    (_BOTH, _IMAGE): Template(
        shared_side="query",
        prefix=_TWO_PICTURES,
        suffix=(
            Slot.CANDIDATE_IMAGES,
            "Does the candidate image match the Query text: <",
            Slot.QUERY_TEXT,
            "> and query image?" + _ANSWER,
        ),
        published=True,
    ),
    (_BOTH, _BOTH): Template(
        shared_side="query",
        prefix=_TWO_PICTURES,
        suffix=(
            Slot.CANDIDATE_IMAGES,
            "Does the Candidate image and Candidate image caption :",
            Slot.CANDIDATE_TEXT,
            " are match the Query image and the Query caption :",
            Slot.QUERY_TEXT,
            "?" + _ANSWER,
        ),
        published=True,
    ),
    (_IMAGE, _IMAGE): Template(
        shared_side="query",
        prefix=_TWO_PICTURES,
        suffix=(Slot.CANDIDATE_IMAGES, "Does the candidate image match the query image?" + _ANSWER),
        published=False,
    ),
    (_IMAGE, _BOTH): Template(
        shared_side="query",
        prefix=_TWO_PICTURES,
        suffix=(
            Slot.CANDIDATE_IMAGES,
            "Does the candidate image with the caption: <",
            Slot.CANDIDATE_TEXT,
            "> match the query image?" + _ANSWER,
        ),
        published=False,
    ),
    (_TEXT, _BOTH): Template(
        shared_side="candidate",
        prefix=(
            Slot.CANDIDATE_IMAGES,
            "Does the image with the caption: <",
            Slot.CANDIDATE_TEXT,
            "> match the query:",
        ),
        suffix=(" <", Slot.QUERY_TEXT, ">?" + _ANSWER),
        published=False,
    ),
    (_BOTH, _TEXT): Template(
        shared_side="query",
        prefix=(
            Slot.QUERY_IMAGES,
            "Does the image with the query text: <",
            Slot.QUERY_TEXT,
            "> match the caption:",
        ),
        suffix=(" <", Slot.CANDIDATE_TEXT, ">?" + _ANSWER),
        published=False,
    ),
    (_TEXT, _TEXT): Template(
        shared_side="query",
        prefix=("Does the query: <", Slot.QUERY_TEXT, "> match the text:"),
        suffix=(" <", Slot.CANDIDATE_TEXT, ">?" + _ANSWER),
        published=False,
    ),
}

RETLLM = Method(
    name="retllm",
    framings=(
        Framing(
            name="retllm",
            version="1",
            labels=Labels(positive="True", negative="False"),
            templates=MappingProxyType(_TEMPLATES),
        ),
    ),
    depth=5,
    quantum=0.01,
    enhancement=PRESETS["default"],
)
