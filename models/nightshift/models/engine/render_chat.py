"""A process that renders one chat template and ends; run by `chat_template`, as a script.

A template comes with a checkpoint: it may loop for ever, or ask for all memory, in ways that no
sandbox notices. The limits of a process hold whatever it does.
"""

import json
import resource
import sys
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_CPU_S = 2
_MEMORY_BYTES = 256 << 20
_MAX_CHARACTERS = 1 << 20


class _Generation(Extension):
    """`{% generation %}` marks for training what an assistant said; its content is shown."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def main() -> None:
    """Read template and variables from standard input, write the text or the error."""
    _limit()
    request = json.load(sys.stdin)
    try:
        answer = {"text": _render(request["template"], request["variables"])}
    except MemoryError:
        answer = {"error": f"it needs more than {_MEMORY_BYTES >> 20} MiB of memory"}
    except Exception as error:  # noqa: BLE001 - whatever a template or its interpreter raises
        answer = {"error": f"{error or type(error).__name__}"[:2000]}
    json.dump(answer, sys.stdout)


def _render(template: str, variables: dict[str, Any]) -> str:
    # As transformers makes it: `tests/models/engine/test_chat_template.py` compares the two.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005 - as written
    pieces: list[str] = []
    length = 0
    for piece in environment.from_string(template).generate(variables):
        pieces.append(piece)
        length += len(piece)
        if length > _MAX_CHARACTERS:
            raise ValueError(f"it writes more than {_MAX_CHARACTERS:,} characters")
    return "".join(pieces)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _raise(message: str) -> None:
    raise TemplateError(message)


# transformers' own: jinja's would escape what HTML reserves.
def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


if __name__ == "__main__":
    main()
