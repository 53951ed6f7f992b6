"""JSON and CSV: two roads each, an exact one that defines what a file means, and a fast one that proves it agrees."""

from __future__ import annotations

from app.engines.embedded.text.decoders import text_decoder

__all__ = ["text_decoder"]
