"""Text to tokens and back, as the model package's tokenizer.json says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_client.data.errors import DataError
from edge_client.data.quoting import Quoted

if TYPE_CHECKING:
    import tokenizers

_REPLACEMENT = "\ufffd"
_MAX_HELD_TOKENS = 8  # a character has at most 4 bytes, each a token at worst; some slack for normalisers


class Tokenizer:
    """The tokenizer of a model package.

    Args:
        path: tokenizer.json.
        bos: id of the beginning-of-sequence token, if the model has one.
        eos: id of the end-of-sequence token, if the model has one.
        add_bos: whether sequences start with `bos`.

    Attributes:
        controls: texts of the control tokens, longest first.

    Raises:
        DataError: the file is not a tokenizer.
    """

    def __init__(self, path: Path, *, bos: int | None, eos: int | None, add_bos: bool) -> None:
        import tokenizers

        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"{path}: not a tokenizer ({error}); fetch the model package again") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._plain: tokenizers.Tokenizer | None = None
        added = self._tokenizer.get_added_tokens_decoder().values()
        self.controls = tuple(sorted((each.content for each in added if each.special), key=len, reverse=True))
        self.bos = bos
        self.eos = eos
        self.add_bos = add_bos and bos is not None

    @property
    def prefix(self) -> list[int]:
        """Tokens that every sequence starts with: [bos] or nothing."""
        return [self.bos] if self.add_bos and self.bos is not None else []

    @property
    def suffix(self) -> list[int]:
        """Tokens that end an answer: [eos] or nothing."""
        return [] if self.eos is None else [self.eos]

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without any special token added; control tokens in it are recognised."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_plain(self, text: str) -> list[int]:
        """Tokens of a text in which nothing is a control token."""
        if not any(control in text for control in self.controls):
            return self.encode(text)
        if self._plain is None:
            # A tokenizer of its own: the switch is the object's, and another thread may be encoding.
            plain = type(self._tokenizer).from_str(self._tokenizer.to_str())
            plain.encode_special_tokens = True
            self._plain = plain
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def encode_rendered(self, text: str, quoted: Quoted) -> list[int]:
        """Tokens of what a template made of quoted messages: only its own control tokens are some."""
        if not quoted.originals:
            return self.encode(text)
        tokens: list[int] = []
        for part in re.split("(" + "|".join(map(re.escape, self.controls)) + ")", text):
            tokens += self.encode(part) if part in self.controls else self.encode_plain(quoted.restore(part))
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens; special tokens are left out."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

    def text_of(self, token: int | None) -> str:
        """The piece of a token as the vocabulary spells it; empty for no token."""
        return "" if token is None else (self._tokenizer.id_to_token(token) or "")

    def decode_stream(self, tokens: Iterable[int], *, after: Sequence[int] = ()) -> Iterator[str]:
        """Yields the text as it grows; the pieces joined are `decode` of all tokens.

        A character whose bytes are spread over several tokens comes out once it is whole.

        Args:
            tokens: of the text.
            after: tokens before them whose text is not yielded: a text that is
                continued keeps the space that `decode` drops at a beginning.
        """
        context = list(after)  # tokens already shown, kept because spaces depend on the left neighbour
        held: list[int] = []
        for token in tokens:
            held.append(token)
            shown = self.decode(context)
            text = self.decode(context + held)
            if text.endswith(_REPLACEMENT) and len(held) < _MAX_HELD_TOKENS:
                continue
            if len(text) > len(shown):
                yield text[len(shown) :]
                context, held = held, []
        if held:
            tail = self.decode(context + held)[len(self.decode(context)) :]
            if tail:
                yield tail
