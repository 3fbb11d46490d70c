"""Adapts the pages to the site: adds decisions to the menu, unlinks what lies outside `docs/`."""

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_DOCS = Path(__file__).parent


def on_config(config: Any) -> Any:  # noqa: ANN401 - MkDocs' own
    """Adds one entry for each decision to the menu, in the order of their numbers."""
    decisions = sorted((_DOCS / "decisions").glob("*.md"))
    pages = [path.relative_to(_DOCS).as_posix() for path in decisions]
    config["nav"].append({"Decisions": pages})
    return config


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:  # noqa: ANN401 - MkDocs' own
    """Replaces links that lead out of `docs/` by their text; the site holds no such file."""
    folder = (_DOCS / page.file.src_path).parent

    def replaced(link: re.Match[str]) -> str:
        text, address = link[1], link[2]
        target = (folder / address).resolve()
        outside = "://" not in address and not target.is_relative_to(_DOCS)
        return text if outside or target.is_dir() else link[0]

    return _LINK.sub(replaced, markdown)
