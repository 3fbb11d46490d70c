"""Files of a source that no reader takes: counted and named, so that the user notices them."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from nightshift.schema.display import visible

__all__ = ["SkippedFiles"]

_MAX_NAMES = 3
_MAX_KINDS = 12
#: Names of files that commonly lie beside data.
_SIDE_STEMS = ("readme", "license", "licence", "notice", "changelog", "citation", "_success")
_SIDE_NAMES = frozenset({
    "thumbs.db", "desktop.ini", "dataset_info.json", "dataset_infos.json", "dataset_dict.json",
    "state.json", "sha256sums", "sha1sums", "md5sums", "checksums.txt",
})  # fmt: skip
_SIDE_SUFFIXES = frozenset({".md5", ".sha1", ".sha256", ".crc", ".idx", ".lock"})


@dataclass(slots=True)
class SkippedFiles:
    """Counts of files, or members of tars, that no reader took, with some names."""

    count: int = 0
    #: Extension → number of files.
    kinds: Counter[str] = field(default_factory=Counter)
    _names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, kind: str = "") -> None:
        """Count a file, unless it is hidden or of a kind that commonly lies beside data.

        Args:
            name: Its path relative to the source.
            kind: What to count it as; default: its extension.
        """
        path = PurePosixPath(name.lower())
        if (
            path.name.startswith((".", *_SIDE_STEMS))
            or path.name in _SIDE_NAMES
            or path.suffix in _SIDE_SUFFIXES
            or "__macosx" in path.parts
        ):
            return
        kind = kind or visible(path.suffix)[:20] or "without an extension"
        if kind not in self.kinds and len(self.kinds) >= _MAX_KINDS:
            kind = "of other kinds"
        self.count += 1
        self.kinds[kind] += 1
        names = self._names.setdefault(kind, [])
        if len(names) < _MAX_NAMES:
            names.append(visible(name)[:200])

    @property
    def names(self) -> list[str]:
        """Names of some of them, of every kind."""
        return [name for names in self._names.values() for name in names]

    def message(self) -> str:
        """A sentence for the user; empty if no file was skipped."""
        if not self.count:
            return ""
        kinds = "; ".join(
            f"{n:,} {kind} ({', '.join(self._names[kind])}{', …' if n > _MAX_NAMES else ''})"
            for kind, n in self.kinds.most_common()
        )
        what = "1 file was" if self.count == 1 else f"{self.count:,} files were"
        return f"{what} left out: {kinds}"
