"""IndexMLLM (Tharwat et al., CVPR 2026 Findings, arXiv 2604.13268): pairs of images.

The model is shown the query's image, then the candidate's, and asked for one digit; the margin is
the logit of "1" minus that of "0", raw. The final score is λ times the coarse score plus 1 − λ
times the probability. Visual tokens of candidates may come from a compressed index (`codecs`).
Prompts: methods §4.1, from the authors' code (gkordo/mllm-ilr, `utils.py`) but for `product`, which
is ours in their form.
"""

from dataclasses import replace
from types import MappingProxyType

from nightshift.schema.params import EnhancementParams, Kinds
from nightshift.scoring.methods.method import Method
from nightshift.scoring.prompts import Framing, Labels, Slot, Template

__all__ = ["INDEXMLLM"]

_IMAGE: Kinds = frozenset({"image"})

#: By name: the question, and what the digits 0 and 1 mean.
_QUESTIONS = {
    "object": (
        """\
Determine whether the exact same object instance from the query image is present in the candidate \
image.
* The instance must be the same, not just a similar object.
* The instance may appear at a different scale, partially occluded, or among other objects.
""",
        "the object instance does not appear",
        "the object instance appears in the candidate",
    ),
    "landmark": (
        """\
Determine whether the exact same landmark, building, or architectural detail from the query image \
is present in the candidate image.
* The instance must be the same, not just a similar-looking building or structure.
* The query image may show the entire landmark or just a specific, cropped part of it (like a \
doorway, statue, or window).
* The instance in the candidate image may appear at a different scale, from a different \
viewpoint/angle, under different lighting, or be partially occluded.
""",
        "the instance does not appear",
        "the instance appears in the candidate",
    ),
    "generic": (
        "Determine whether the candidate is similar to the query image.\n",
        "the object instance does not appear.",
        "the object instance appears in the candidate.",
    ),
    "product": (
        """\
Determine whether both show the exact same product.
* Brand, model and variant must be the same, not just the kind of product.
* It may be shown from another side, on another background, or in other packaging.
""",
        "the candidate does not show the same product",
        "the candidate shows the same product",
    ),
}


def _framing(name: str) -> Framing:
    question, absent, present = _QUESTIONS[name]
    question = (
        f"\nYou are given two images: a query and a candidate. {question}\n"
        f"Output strictly a single digit:\n0 = {absent}\n1 = {present}\n\n"
        "Do not output anything else.\n"
    )
    template = Template(
        shared_side="query",
        prefix=(Slot.QUERY_IMAGES,),
        suffix=(Slot.CANDIDATE_IMAGES, question),
        published=name != "product",
    )
    return Framing(
        name=name,
        version="1",
        labels=Labels(positive="1", negative="0"),
        templates=MappingProxyType({(_IMAGE, _IMAGE): template}),
    )


_DEFAULT = Method(
    name="indexmllm",
    framings=tuple(map(_framing, _QUESTIONS)),
    # The authors re-rank a thousand, on many GPUs.
    depth=100,
    quantum=0.0,
    fusion=0.5,
    enhancement=EnhancementParams(trigger="never"),
)

INDEXMLLM = replace(
    _DEFAULT,
    presets=MappingProxyType(
        {
            "code": replace(
                _DEFAULT,
                depth=1000,
                long_side=756,
                # 256 to 1,280 visual tokens of Qwen2.5-VL.
                min_pixels=256 * 28 * 28,
                max_pixels=1280 * 28 * 28,
            )
        }
    ),
)
