"""The bundled demo: a drawn catalogue of shapes scenes and the tiny real models that know it."""

from nightshift.demo.catalogue import write_catalogue
from nightshift.demo.paths import coarse_dir, scorer_dir

__all__ = ["coarse_dir", "scorer_dir", "write_catalogue"]
