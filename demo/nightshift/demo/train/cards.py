"""The model cards, written from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nightshift.demo.train.course import TrainingStage
from nightshift.demo.train.evaluate import DirectionQuality

_LICENCE = "---\nlicense: apache-2.0\n---\n"


def coarse_card(
    rounds: Sequence[TrainingStage], recalls: Mapping[str, Mapping[int, float]], *, seed: int
) -> str:
    """The card of the open_clip model, with its validation curve."""
    lines = [
        _LICENCE,
        "# Nightshift demo: coarse model\n",
        "A tiny open_clip dual encoder for drawn shapes scenes. It serves the bundled demo and",
        "nothing else: real photographs and free text mean nothing to it.\n",
        f"- data: scenes drawn from seed {seed}, split `train`; no caption of a real data set",
        "- training: symmetric contrastive loss over 256 images and captions a step; in every",
        "  round the rate stays, then falls to almost nothing; each begins at half the rate of the",
        "  one before",
        *_spans(rounds),
        "- weights: float16, read as float32\n",
        "## Held-out recall (split `test`, 200 queries over the whole catalogue)\n",
        *_recall_table(recalls),
        "\n## Validation curve (split `validation`, both directions averaged)",
        *_curves(rounds),
    ]
    return "\n".join(lines) + "\n"


def scorer_card(
    stages: Sequence[TrainingStage],
    directions: Mapping[str, DirectionQuality],
    accuracies: Mapping[str, float],
    *,
    seed: int,
) -> str:
    """The card of the Qwen2.5-VL model."""
    lines = [
        _LICENCE,
        "# Nightshift demo: scorer\n",
        "A tiny `Qwen2_5_VLForConditionalGeneration` for drawn shapes scenes, with its own",
        "tokenizer and processor, trained on the questions of RetLLM (True/False), FreeRet (A/B)",
        "and IndexMLLM (0/1) about such scenes. How far it got with each is in the table of",
        "accuracies, where 0.5 is guessing; about anything else its answers mean nothing.\n",
        f"- data: scenes drawn from seed {seed}, split `train`",
        "- training: cross-entropy of the label and of the caption's words, 24 to 128 prompts a",
        "  step; beside it a probe judges at every word whether the caption fits so far, and at",
        "  every thing of an image what it has in common with the scene asked about; in the",
        "  beginning the mean visual token is pulled towards the coarse model's embedding of the",
        "  caption (neither is part of the weights)",
        *_spans(stages),
        "- weights: float16, read as float32\n",
        "## Held-out recall@k after re-ranking the first twenty (split `test`, 200 queries)\n",
        *_recall_table({name: side.fine for name, side in directions.items()}),
        "\n## Held-out accuracy (split `test`, half hard negatives)\n",
        "| question | accuracy |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in accuracies.items()),
        "\n## Curves (accuracy on split `validation`)\n",
        "`matching`: True/False; `choosing`: A/B about an image and captions; `looking`: A/B",
        "about a caption and images; `comparing`: questions about two images.",
        *_curves(stages),
    ]
    return "\n".join(lines) + "\n"


def _spans(stages: Sequence[TrainingStage]) -> list[str]:
    return [
        f"  - {stage.name}: {stage.curve[-1]['step']:.0f} steps, {stage.minutes:.0f} minutes on"
        " one CPU core"
        for stage in stages
    ]


def _curves(stages: Sequence[TrainingStage]) -> list[str]:
    return [line for stage in stages for line in (f"\n{stage.name}:\n", *_table(stage.curve))]


def _recall_table(recalls: Mapping[str, Mapping[int, float]]) -> list[str]:
    depths = list(next(iter(recalls.values())))
    return [
        "| direction | " + " | ".join(f"recall@{depth}" for depth in depths) + " |",
        "|---" * (len(depths) + 1) + "|",
        *(
            f"| {name.replace('_', ' ')} | "
            + " | ".join(f"{values[depth]:.3f}" for depth in depths)
            + " |"
            for name, values in recalls.items()
        ),
    ]


def _table(curve: list[dict[str, float]]) -> list[str]:
    names = list(curve[0])
    return [
        "| " + " | ".join(names) + " |",
        "|---" * len(names) + "|",
        *("| " + " | ".join(f"{point[name]:.4g}" for name in names) + " |" for point in curve),
    ]
