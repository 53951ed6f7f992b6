"""What the options of a CSV file mean: its signs, and which text is null."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from app.domain.errors import Category, FileError
from app.domain.formats import FormatOptions

_ENDS_OF_LINE = "\r\n"


@dataclass(frozen=True)
class CsvGrammar:
    """The signs of a CSV file. `quote` and `escape` are empty where there are none."""

    delimiter: str
    quote: str
    escape: str
    null_values: frozenset[str]
    header: bool
    skip_rows: int

    @classmethod
    def of(cls, options: FormatOptions) -> CsvGrammar:
        """The grammar that `options` describe.

        Raises:
            FileError: `format_options_invalid`: they make no sense.
        """
        # An escape that is the quote itself is the doubling of quotes, which is always understood.
        escape = "" if options.escape in {None, options.quote} else str(options.escape)
        grammar = cls(
            options.delimiter, options.quote, escape, frozenset(options.null_values), options.header, options.skip_rows
        )
        problem = grammar.problem()
        if problem:
            raise FileError(Category.FORMAT_OPTIONS_INVALID, problem)
        return grammar

    def problem(self) -> str:
        """Why the options make no sense; empty when they do."""
        signs = {"delimiter": self.delimiter, "quote": self.quote, "escape": self.escape}
        for name, sign in signs.items():
            if len(sign) > 1 or (name == "delimiter" and not sign):
                return f'The option {name} must be one character, not "{sign}".'
            if sign and sign in _ENDS_OF_LINE:
                return f"The option {name} cannot be an end of line."
        used = [sign for sign in signs.values() if sign]
        if len(set(used)) < len(used):
            return "The options delimiter, quote and escape must be different characters."
        return "" if self.skip_rows >= 0 else "The option skip_rows cannot be below 0."

    @property
    def is_plain(self) -> bool:
        """Whether the signs are such that the fast parser understands them: ASCII, and no escapes."""
        return not self.escape and (self.delimiter + self.quote).isascii()

    @cached_property
    def field(self) -> re.Pattern[str]:
        """One field and what ends it: groups for quoted content, plain content, and the sign at the end.

        A carriage return at the very end of the text ends nothing yet: a newline may follow.
        """
        return re.compile(
            f"(?:{self._quoted}|({self._plain}))({re.escape(self.delimiter)}|\\r\\n|\\n|\\r(?!\\Z))", re.DOTALL
        )

    @cached_property
    def quoted(self) -> re.Pattern[str]:
        """A quoted field with both its quotes."""
        return re.compile(self._quoted, re.DOTALL)

    @cached_property
    def _quoted(self) -> str:
        if not self.quote:
            return "(?!)()"
        quote, escape = re.escape(self.quote), re.escape(self.escape)
        pairs = f"{quote}{quote}" + (f"|{escape}." if escape else "")
        content = f"[^{quote}{escape}]*"
        # Possessive, so that a field that is wrong is found out in one pass.
        return f"{quote}({content}+(?:(?:{pairs}){content}+)*+){quote}(?!{quote})"

    @cached_property
    def _plain(self) -> str:
        delimiter, escape = re.escape(self.delimiter), re.escape(self.escape)
        begin = f"(?!{re.escape(self.quote)})" if self.quote else ""
        if not escape:
            return f"{begin}[^{delimiter}\\r\\n]*+"
        return f"{begin}(?:[^{delimiter}{escape}\\r\\n]|{escape}.)*+"

    @cached_property
    def _pairs(self) -> re.Pattern[str]:
        signs = [f"{re.escape(self.quote)}(?={re.escape(self.quote)})"] if self.quote else []
        signs += [re.escape(self.escape)] if self.escape else []
        return re.compile(f"(?:{'|'.join(signs)})(.)", re.DOTALL)

    def plain_text(self, content: str) -> str:
        """The text that the content of a field stands for."""
        if (self.quote and self.quote in content) or (self.escape and self.escape in content):
            return self._pairs.sub(r"\1", content)
        return content

    def unescaped(self, content: str) -> str:
        """The same for a field without quotes around it, where a quote is a character like others."""
        if self.escape and self.escape in content:
            return re.sub(f"{re.escape(self.escape)}(.)", r"\1", content, flags=re.DOTALL)
        return content
