"""The chat template of a checkpoint: which one it is, and its text, within bounds."""

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from nightshift.schema.errors import ModelError

__all__ = ["render_chat"]

_PROGRAM = Path(__file__).with_name("render_chat.py")
# Its processor time is limited inside; this is for a machine that is too busy to run it.
_WAIT_S = 120.0


def render_chat(
    processor: Any,  # noqa: ANN401 - transformers types it loosely
    messages: list[dict[str, Any]],
    name: str,
    *,
    add_generation_prompt: bool,
) -> str:
    """The text of a conversation, as the processor's `apply_chat_template` gives it.

    Rendered in a process of its own, with bounds on time, memory and length: a template is a
    program that comes with the weights.

    Args:
        processor: The checkpoint's own.
        messages: Of the conversation: texts and images.
        name: The model, for messages.
        add_generation_prompt: Whether the text ends where an answer begins.

    Raises:
        ModelError: There is no template, or it cannot be rendered within the bounds.
    """
    variables = {
        "messages": messages,
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **_special_tokens(processor.tokenizer),
    }
    request = json.dumps({"template": _template(processor, name), "variables": variables})
    try:
        return _rendered(request)
    except _RenderError as error:
        raise ModelError(f"{name} has no usable chat template: {error}", name) from error


def _template(processor: Any, name: str) -> str:  # noqa: ANN401 - as above
    """The processor's, or else its tokenizer's: older repositories keep it there."""
    for owner in (processor, processor.tokenizer):
        template = getattr(owner, "chat_template", None)
        if isinstance(template, dict):
            if "default" not in template:
                raise ModelError(
                    f"{name} has several chat templates ({', '.join(sorted(template))}) and none "
                    "of them is named default: write the one to use into chat_template.jinja",
                    name,
                )
            template = template["default"]
        if template:
            return str(template)
    raise ModelError(
        f"{name} has no chat template, neither in chat_template.jinja nor in "
        "tokenizer_config.json: take an instruction-tuned checkpoint, or put the template of the "
        "model that it was trained from into chat_template.jinja",
        name,
    )


def _special_tokens(tokenizer: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    tokens: dict[str, Any] = json.loads(json.dumps(tokenizer.special_tokens_map, default=str))
    return tokens


class _RenderError(Exception):
    """A template gives no text; the message is the reason."""


@lru_cache(maxsize=64)
def _rendered(request: str) -> str:
    """The text that the program writes; errors are not remembered: a machine may have been busy."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_PROGRAM)],
            input=request.encode(),
            capture_output=True,
            timeout=_WAIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _RenderError(f"it takes longer than {_WAIT_S:.0f} s") from error
    if done.returncode < 0:
        raise _RenderError("it takes more processor time or memory than any template needs")
    if done.returncode:
        raise _RenderError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    answer: dict[str, str] = json.loads(done.stdout)
    if "error" in answer:
        raise _RenderError(answer["error"])
    return answer["text"]
