"""The decoder for a format of text."""

from __future__ import annotations

from app.domain.formats import FileFormat, FormatOptions
from app.domain.types import Struct
from app.engines.embedded.decoding import TextDecoder
from app.engines.embedded.text.csv_decoder import CsvDecoder
from app.engines.embedded.text.json_decoder import JsonDecoder


def text_decoder(options: FormatOptions, schema: Struct) -> TextDecoder:
    """The decoder of `options.format` for a table's data columns (with ids; empty where nothing is known yet).

    Raises:
        FileError: `format_options_invalid`: the options make no sense.
    """
    return CsvDecoder(options, schema) if options.format is FileFormat.CSV else JsonDecoder(options, schema)
