"""Lists words that do not belong in this project: `python -m tests.words [ROOM …]`.

It reads names, comments, docstrings, other strings and pages. Add a word to one of the tables
below, with the word to use in its place, and `tests/test_words.py` finds every use of it.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Names that say nothing, whole, and what to write in their place.
NAMES = {
    "again": "say what is repeated",
    "alone": "name what the value is",
    "anew": "say what is repeated",
    "asked": "name the request",
    "asked_for": "with_…, requested_…",
    "at_once": "batch_size",
    "found": "name the result: rows, missing_keys",
    "looked": "name the result",
    "most": "max_…",
    "one": "name what the loop variable holds: item_id, row",
    "seen": "name what was read or visited",
    "told": "warned, reported",
    "whole": "name what the value is",
}
#: Words that appear in no name, not even as a part.
NAME_PARTS = {
    "anew": "say what is repeated",
    "album": "image_set",
    "farewell": "stop",
    "goodbye": "stop",
    "lockstep": "packed forward",
    "looked": "read, examined",
    "pen": "canvas",
    "picture": "image",
    "pictures": "images",
    "quickened": "patched",
    "shrug": "drop",
    "told": "warned, reported",
    "why": "…_reason",
}
#: Parts of names at the beginning only.
NAME_BEGINNINGS = {"most_": "max_…"}
#: Words and phrases that appear in no comment, docstring, message or page.
PROSE = {
    "album": "image set",
    "anew": "again, or say what is repeated",
    "books do not balance": "counts do not add up",
    "farewell": "end, stop",
    "fell silent": "lost, stopped responding",
    "goodbye": "end, stop",
    "in lockstep": "in one packed forward",
    "left word": "recorded",
    "picture": "image",
    "pictures": "images",
    "pictured": "shown",
    "quickened": "patched",
    "shrug": "drop",
    "special signs": "special characters",
    "told": "reported, informed",
    "what a model makes of": "the model's …",
    "without a word": "without a message",
}
#: A docstring begins with a verb or with the thing.
BAD_BEGINNINGS = ("How", "Of", "What", "Whether", "Whose", "Why")

#: Files whose strings are quoted from elsewhere or lie in stored data: no word of them may change.
QUOTED_FILES: dict[str, str] = {
    "tests/words.py": "lists the words",
}
#: Parts of strings that stay as they are, by the reason.
QUOTED_PHRASES: dict[str, str] = {
    "What is in this picture?": "a published prompt; another one would give other scores",
    "pairs, prefixes, pictures, vectors": "values of a tally, in a comment of the database",
}
#: Public names that stay, by the reason.
PUBLIC_NAMES: dict[str, str] = {
    "PICTURES": "the name of a tally, a value in the database",
    "pictures_seen": "a key of `run show --json`",
}
#: Frozen records: what ran on users' databases stays as it ran.
FROZEN = "migrations/nightshift/migrations/versions/"

ROOMS = ("api", "cli", "demo", "migrations", "models", "producers", "results", "schema", "scoring",
         "stack", "stores", "workers", "tests", "benchmarks", "examples", "docs")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Offence:
    """A word that does not belong where it stands."""

    path: str
    line: int
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text} → {self.remedy}"


def offences(room: str) -> list[Offence]:
    """The offences of a room, sorted; `docs` holds the pages and what lies beside them."""
    listed: list[Offence] = []
    for path in sorted((ROOT / room).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if (
            "__pycache__" not in path.parts
            and name not in QUOTED_FILES
            and not name.startswith(FROZEN)
        ):
            listed.extend(_of_module(name, path.read_text("utf-8")))
    if room == "docs":
        pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
        for path in sorted(pages):
            listed.extend(_of_text(str(path.relative_to(ROOT)), 1, path.read_text("utf-8")))
        listed.extend(_of_text("CHANGELOG.md", 1, _newest_section()))
    return sorted(set(listed), key=lambda offence: (offence.path, offence.line, offence.text))


def name_remedy(name: str) -> str | None:
    """What to write in place of an identifier; None if it may stay."""
    if name in PUBLIC_NAMES:
        return None
    plain = name.strip("_")
    if (remedy := NAMES.get(plain.lower())) is not None:
        return remedy
    for beginning, remedy in NAME_BEGINNINGS.items():
        if plain.lower().startswith(beginning):
            return remedy
    for part in _parts(plain):
        if part in NAME_PARTS:
            return NAME_PARTS[part]
    return None


def _of_module(path: str, source: str) -> Iterator[Offence]:
    tree = ast.parse(source)
    for name, line in _names(tree):
        if name.startswith("test_"):  # the name of a test is a sentence
            yield from _of_text(path, line, name.replace("_", " "))
            continue
        if remedy := name_remedy(name):
            yield Offence(path=path, line=line, text=f"name {name!r}", remedy=remedy)
    for line, docstring in _docstrings(tree):
        if docstring.split(None, 1)[:1] and docstring.split(None, 1)[0] in BAD_BEGINNINGS:
            first = docstring.splitlines()[0]
            remedy = "begin with a verb or with the thing"
            yield Offence(path=path, line=line, text=f"docstring {first!r}", remedy=remedy)
    for line, text in [*_comments(source), *_strings(tree)]:
        yield from _of_text(path, line, text)


def _of_text(path: str, line: int, text: str) -> Iterator[Offence]:
    # What stands in backticks is a name: the code that holds it is read elsewhere.
    text = re.sub(
        r"```.*?```|`[^`\n]*`", lambda quoted: "\n" * quoted[0].count("\n"), text, flags=re.DOTALL
    )
    for phrase in QUOTED_PHRASES:
        text = text.replace(phrase, "")
    for match in _PROSE.finditer(text):
        place = line + text.count("\n", 0, match.start())
        remedy = PROSE[match[0].lower()]
        yield Offence(path=path, line=place, text=f"word {match[0]!r}", remedy=remedy)


_PROSE = re.compile(
    r"(?<![\w/.])("
    + "|".join(map(re.escape, sorted(PROSE, key=len, reverse=True)))
    + r")(?![\w/=])",
    re.IGNORECASE,
)


def _names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that the module defines: classes, functions, arguments, variables and attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.Name(ctx=ast.Store()):
                yield node.id, node.lineno
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr, node.lineno
            case ast.alias(asname=str(name)):
                yield name, node.lineno
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)):
                yield name, node.lineno


def _docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            docstring = ast.get_docstring(node)
            if docstring and isinstance(node.body[0], ast.Expr):
                yield node.body[0].lineno, docstring


def _strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Strings of several words: docstrings, messages and help."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _parts(name: str) -> list[str]:
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _newest_section() -> str:
    """The changelog's first section, from its top so that line numbers are the file's."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = [match.start() for match in re.finditer(r"^## ", text, re.MULTILINE)]
    return text[: headings[1]] if len(headings) > 1 else text


if __name__ == "__main__":
    for chosen in sys.argv[1:] or ROOMS:
        room_offences = offences(chosen)
        print(*room_offences, sep="\n")
        print(f"{chosen}: {len(room_offences)} offences")
