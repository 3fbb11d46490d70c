"""The load report: what works with a loaded model, and what does not."""

from dataclasses import dataclass

__all__ = ["LoadReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """A loaded multimodal language model, as far as an operator cares."""

    #: The class of transformers.
    family: str
    #: transformers' name of the language model inside, and its layers.
    decoder: str
    n_layers: int
    #: How images become visual tokens.
    image_handling: str
    #: Why layers cannot be taken apart, so that prompts are not packed, and the enhancement cannot
    #: act on what is written token by token; None where they can.
    unpacked_reason: str | None
    #: Why there is no state behind the last attention, FreeRet's own site; None where there is.
    no_attn_site_reason: str | None
    #: Codecs that cannot reduce its visual tokens.
    no_codecs: tuple[str, ...] = ()
    #: Layers of the decoder that get features of the image (DeepStack).
    n_deepstack: int = 0

    def text(self) -> str:
        """One line."""
        facts = [
            f"{self.family} ({self.decoder}, {self.n_layers} layers)",
            f"packed: {_yes(self.unpacked_reason)}",
            f"visual enhancement: {self._enhanced()}",
            f"FreeRet embedding: {self._embedding()}",
            f"stored visual tokens: {self._codecs()}",
            f"images: {self.image_handling}",
        ]
        if self.n_deepstack:
            facts.append(f"DeepStack features for {self.n_deepstack} layers")
        return "; ".join(facts)

    def row(self, name: str) -> str:
        """A row of the table in `docs/models.md`.

        Args:
            name: transformers' `model_type`.
        """
        cells = [
            f"`{name}`",
            f"`{self.family}`",
            _yes(self.unpacked_reason),
            self._enhanced(),
            self._embedding(),
            self._codecs(),
            "yes" if self.n_deepstack else "–",
            self.image_handling,
        ]
        return f"| {' | '.join(cells)} |"

    def _enhanced(self) -> str:
        return "yes, but not while it writes" if self.unpacked_reason else "yes"

    def _embedding(self) -> str:
        return (
            f"yes, but not at attn_L ({self.no_attn_site_reason})"
            if self.no_attn_site_reason
            else "yes"
        )

    def _codecs(self) -> str:
        return f"yes, but not by {' or '.join(self.no_codecs)}" if self.no_codecs else "yes"


def _yes(reason: str | None) -> str:
    return f"no ({reason})" if reason else "yes"
