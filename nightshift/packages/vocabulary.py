"""From a GGUF vocabulary to tokenizer.json, giving the ids that llama.cpp gives.

Two kinds are in use. "llama" is SentencePiece: pieces with scores, characters outside the
vocabulary spelled as bytes. "gpt2" is byte-level BPE with an explicit list of merges and a
pre-tokeniser, named by `tokenizer.ggml.pre`. Both become a `tokenizers` BPE model.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from nightshift.packages.gguf_file import GgufFile
from nightshift.protocol.errors import IncompatibleError, MalformedError

_SPACE: Final = "▁"
_KEY: Final = "tokenizer.ggml"

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS_AND_LINES = r"[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

SPLITS: Final = {
    "gpt-2": (_GPT2_WORDS,),
    "llama-bpe": (_CONTRACTIONS + "|" + _WORDS_AND_LINES % r"\p{N}{1,3}",),
    "qwen2": (_CONTRACTIONS + "|" + _WORDS_AND_LINES % r"\p{N}",),
    "smollm": (r"\p{N}", _GPT2_WORDS),
}
"""`tokenizer.ggml.pre` -> patterns that cut text into words, applied one after the other
(llama.cpp, llama-vocab.cpp)."""

_WHOLE_WORDS_FIRST: Final = frozenset({"llama-bpe"})
"""Pre-tokenisers whose models look a whole word up before they merge (`ignore_merges`)."""


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the file says about its tokens; the index of a token is its id.

    Attributes:
        kind: "llama" (SentencePiece) or "gpt2" (byte-level BPE).
        tokens: Texts.
        types: One for each token.
        bos: Id of the token that begins a text, or None.
        eos: Id of the token that ends one, or None.
        add_bos: Whether a text is begun with it.
    """

    kind: str
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    bos: int | None
    eos: int | None
    add_bos: bool

    def of_type(self, *types: TokenType) -> list[str]:
        """Texts of all tokens of these types, by id."""
        return [text for text, kind in zip(self.tokens, self.types, strict=True) if kind in types]


def read_vocabulary(file: GgufFile, size: int) -> Vocabulary:
    """Read the vocabulary and check it against the embedding's `size` rows.

    Raises:
        MalformedError: Missing, of another size, with a repeated token or a special id outside it.
        IncompatibleError: A kind of tokenizer that is not built.
    """
    kind = file.text(f"{_KEY}.model")
    if kind not in ("llama", "gpt2"):
        raise IncompatibleError(f"{file.path}: tokenizer {kind[:20]!r}; 'llama' and 'gpt2' are built")
    tokens = file.texts(f"{_KEY}.tokens")
    if len(tokens) != size:
        raise MalformedError(f"{file.path}: {len(tokens)} tokens for an embedding of {size} rows")
    if len(set(tokens)) != size:
        raise MalformedError(f"{file.path}: the vocabulary holds a token twice")
    codes = [int(code) for code in file.numbers(f"{_KEY}.token_type")]
    if len(codes) != size or not set(codes) <= set(TokenType):
        raise MalformedError(f"{file.path}: {_KEY}.token_type does not give a known type for each token")
    begins = kind == "llama" or file.text(f"{_KEY}.pre", "default") == "llama-bpe"
    bos, eos = (_special(file, f"{_KEY}.{name}_token_id", size) for name in ("bos", "eos"))
    return Vocabulary(
        kind=kind,
        tokens=tuple(tokens),
        types=tuple(TokenType(code) for code in codes),
        bos=bos,
        eos=eos,
        add_bos=bos is not None and file.flag(f"{_KEY}.add_bos_token", default=begins),
    )


def tokenizer_json(file: GgufFile, vocabulary: Vocabulary) -> bytes:
    """The bytes of tokenizer.json.

    Encoding adds the beginning token if the model wants one (`add_special_tokens=False` leaves it
    out). Control tokens in a text are recognised; set `encode_special_tokens` on the loaded
    tokenizer for text that must not be able to forge them.

    Raises:
        MalformedError: Scores or merges are missing or do not fit the tokens.
        IncompatibleError: A pre-tokeniser that is not known.
    """
    tokenizer = _sentencepiece(file, vocabulary) if vocabulary.kind == "llama" else _byte_level(file, vocabulary)
    controls = vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in controls])
    own = vocabulary.of_type(TokenType.USER_DEFINED)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in own])
    if vocabulary.add_bos and vocabulary.bos is not None:
        begin = vocabulary.tokens[vocabulary.bos]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[begin, "$A"], pair=[begin, "$A", begin, "$B"], special_tokens=[(begin, vocabulary.bos)]
        )
    document = json.loads(tokenizer.to_str())
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def sentencepiece_merges(tokens: dict[str, int], scores: list[float], pieces: list[str]) -> list[tuple[str, str]]:
    """Merges that make BPE join what SentencePiece joins.

    SentencePiece joins the neighbours whose joined piece has the highest score (llama.cpp,
    llm_tokenizer_spm). So every way to cut a piece into two known pieces is a merge, ranked by the
    score of the whole; a tie goes to the lower ids.

    Args:
        tokens: Text -> id.
        scores: By id.
        pieces: The pieces that may be joined or be part of a join.
    """
    known = set(pieces)
    ranked = []
    for piece in pieces:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in known and right in known:
                ranked.append((-scores[tokens[piece]], tokens[piece], tokens[left], tokens[right], left, right))
    ranked.sort(key=lambda entry: entry[:4])
    return [(left, right) for *_, left, right in ranked]


def _sentencepiece(file: GgufFile, vocabulary: Vocabulary) -> Tokenizer:
    ids = {text: index for index, text in enumerate(vocabulary.tokens)}
    scores = file.numbers(f"{_KEY}.scores")
    if len(scores) != len(ids):
        raise MalformedError(f"{file.path}: {len(scores)} scores for {len(ids)} tokens")
    if not all(map(math.isfinite, scores)):
        raise MalformedError(f"{file.path}: a score that is infinite or not a number")
    unknown = vocabulary.of_type(TokenType.UNKNOWN)
    if len(unknown) != 1:
        raise MalformedError(f"{file.path}: {len(unknown)} tokens of type unknown; expected one")
    tokenizer = Tokenizer(
        models.BPE(
            vocab=ids,
            merges=sentencepiece_merges(ids, scores, vocabulary.of_type(TokenType.NORMAL)),
            unk_token=unknown[0],
            fuse_unk=True,
            byte_fallback=len(vocabulary.of_type(TokenType.BYTE)) == 256,
        )
    )
    prefix = file.flag(f"{_KEY}.add_space_prefix", default=True)
    spaces = normalizers.Replace(" ", _SPACE)
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces])
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        tokenizer.normalizer = spaces
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def _byte_level(file: GgufFile, vocabulary: Vocabulary) -> Tokenizer:
    pre = file.text(f"{_KEY}.pre", "default")
    if pre not in SPLITS:
        raise IncompatibleError(f"{file.path}: pre-tokeniser {pre[:40]!r} is not known; known are {', '.join(SPLITS)}")
    ids = {text: index for index, text in enumerate(vocabulary.tokens)}
    merges = []
    for line in file.texts(f"{_KEY}.merges"):
        left, separator, right = line.partition(" ")
        if not separator or any(part not in ids for part in (left, right, left + right)):
            raise MalformedError(f"{file.path}: merge {line[:60]!r} does not join two tokens to a third")
        merges.append((left, right))
    model = models.BPE(vocab=ids, merges=merges, ignore_merges=pre in _WHOLE_WORDS_FIRST)
    tokenizer = Tokenizer(model)
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS[pre]]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _special(file: GgufFile, key: str, size: int) -> int | None:
    if key not in file:
        return None
    token = file.integer(key)
    if not 0 <= token < size:
        raise MalformedError(f"{file.path}: {key} is {token}, outside the vocabulary of {size}")
    return token
