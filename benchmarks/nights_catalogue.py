"""A catalogue that moves: half texts, half small images, a share of it new each night."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from nightshift.demo.render import render
from nightshift.demo.scenes import Split, describe, random_scene

__all__ = ["MovingCatalogue"]


@dataclass(slots=True, kw_only=True)
class MovingCatalogue:
    """Items in a folder, and what changes of them from night to night.

    Args:
        folder: For the file of items and the images.
        seed: Of everything that is drawn.
    """

    folder: Path
    seed: int = 0
    _rows: dict[str, dict[str, str]] = field(default_factory=dict)
    _made: int = 0

    @property
    def source(self) -> Path:
        """The file of items, as the last night left it."""
        return self.folder / "items.jsonl"

    def begin(self, items: int) -> int:
        """Draw the first night's items; their number."""
        for _ in range(items):
            self._add()
        self._write()
        return items

    def change(self, share: float) -> int:
        """Change half of a share of the items and add as many; remove half as many as that.

        Returns:
            Items that are new, changed or removed.
        """
        rng = Random(f"{self.seed}:{self._made}")
        n_half = max(1, round(len(self._rows) * share / 2))
        changed, removed = n_half, max(1, n_half)
        for name in rng.sample(sorted(self._rows), changed + removed):
            row = self._rows.pop(name)
            if changed:
                changed -= 1
                self._draw(name, is_image="image" in row)
        for _ in range(n_half):
            self._add()
        self._write()
        return 2 * n_half + removed

    def write_queries(self, path: Path, queries: int) -> Path:
        """Text queries, worded from scenes of their own."""
        rng = Random(f"{self.seed}:queries")
        with path.open("w") as file:
            for number in range(queries):
                wording = describe(random_scene(rng, Split.TEST), rng)
                file.write(json.dumps({"id": f"q{number:06d}", "text": wording}) + "\n")
        return path

    def _add(self) -> None:
        self._draw(f"item-{self._made:08d}", is_image=self._made % 2 == 1)

    def _draw(self, name: str, *, is_image: bool) -> None:
        self._made += 1
        rng = Random(f"{self.seed}:{self._made}")
        scene = random_scene(rng, Split.TEST)
        if not is_image:
            self._rows[name] = {"id": name, "text": describe(scene, rng)}
            return
        # A changed image has a name of its own, as in most catalogues.
        folder = Path("images") / f"{self._made // 1000:04d}"
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._made:08d}.png"
        render(scene, rng).save(self.folder / path)
        self._rows[name] = {"id": name, "image": str(path)}

    def _write(self) -> None:
        with self.source.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in self._rows.values())
