"""tokenizer.json of a Hugging Face folder as the metadata of a GGUF file, giving the same ids.

Two kinds are known, as in `vocabulary`: byte-level BPE, whose pre-tokeniser must be one that llama.cpp has a
name for, and SentencePiece BPE, whose scores are made from the order of its merges (only their order counts).
What came out is compared with the source on a few texts: a tokenizer that would read differently is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from nightshift.packages.gguf_file import GgufFile, ValueType
from nightshift.packages.gguf_writer import array_entry, entry
from nightshift.packages.huggingface_config import FolderConfig, read_json
from nightshift.packages.llama_check import PROBES
from nightshift.packages.vocabulary import SPLITS, TokenType, read_vocabulary, tokenizer_json
from nightshift.protocol.errors import IncompatibleError, MalformedError

_TEMPLATE_BYTES_MAX: Final = 1 << 20
_BYTE_TOKENS: Final = frozenset(f"<0x{value:02X}>" for value in range(256))
_SPACE: Final = "▁"


@dataclass(frozen=True, slots=True)
class FolderTokenizer:
    """A folder's tokenizer, read.

    Attributes:
        path: tokenizer.json.
        kind: "llama" (SentencePiece) or "gpt2" (byte-level BPE).
        pre: name of the pre-tokeniser, of the byte-level kind.
        tokens: texts by id, padded to the embedding's rows.
        types: one for each token.
        merges: pairs in the order in which they are made.
        bos: id of the token that begins a text.
        eos: id of the token that ends one.
        add_bos: whether a text is begun with it.
        add_space: whether a text is begun with a space, of the SentencePiece kind.
        chat_template: or None.
    """

    path: Path
    kind: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    merges: tuple[tuple[str, str], ...]
    bos: int | None
    eos: int | None
    add_bos: bool
    add_space: bool
    chat_template: str | None

    def entries(self) -> list[bytes]:
        """Metadata of a GGUF file."""
        found = [
            entry("tokenizer.ggml.model", self.kind),
            array_entry("tokenizer.ggml.tokens", ValueType.STRING, self.tokens),
            array_entry("tokenizer.ggml.token_type", ValueType.INT32, [int(kind) for kind in self.types]),
            entry("tokenizer.ggml.add_bos_token", value=self.add_bos),
        ]
        if self.kind == "gpt2":
            found.append(entry("tokenizer.ggml.pre", self.pre))
            found.append(
                array_entry(
                    "tokenizer.ggml.merges", ValueType.STRING, [f"{left} {right}" for left, right in self.merges]
                )
            )
        else:
            found.append(array_entry("tokenizer.ggml.scores", ValueType.FLOAT32, self._scores()))
            found.append(entry("tokenizer.ggml.add_space_prefix", value=self.add_space))
            found.append(entry("tokenizer.ggml.unknown_token_id", self.types.index(TokenType.UNKNOWN)))
        for name, token in (("bos", self.bos), ("eos", self.eos)):
            if token is not None:
                found.append(entry(f"tokenizer.ggml.{name}_token_id", token))
        if self.chat_template is not None:
            found.append(entry("tokenizer.chat_template", self.chat_template))
        return found

    def _scores(self) -> list[float]:
        """The earlier a piece is made by a merge, the higher its score; single characters come last."""
        rank: dict[str, int] = {}
        for index, (left, right) in enumerate(self.merges):
            rank.setdefault(left + right, index)
        last = len(self.merges) + 1
        return [
            -float(rank.get(text, last) + 1) if kind is TokenType.NORMAL else 0.0
            for text, kind in zip(self.tokens, self.types, strict=True)
        ]

    def check_same_ids(self, gguf: Path) -> None:
        """Compare the tokenizer that a GGUF file gives with tokenizer.json.

        Raises:
            IncompatibleError: they read a text differently.
        """
        theirs = Tokenizer.from_file(str(self.path))
        with GgufFile.open(gguf) as file:
            ours = Tokenizer.from_str(tokenizer_json(file, read_vocabulary(file, len(self.tokens))).decode())
        texts = [*PROBES, *(template for template in (self.chat_template,) if template)]
        for text in texts:
            expected = theirs.encode(text, add_special_tokens=False).ids
            found = ours.encode(text, add_special_tokens=False).ids
            if found != expected:
                raise IncompatibleError(
                    f"{self.path}: this tokenizer cannot be carried over: {text[:24]!r} would read as "
                    f"{found[:6]}…, it reads as {expected[:6]}…"
                )


def read_tokenizer(folder: Path, config: FolderConfig) -> FolderTokenizer:
    """Read tokenizer.json, tokenizer_config.json and the chat template.

    Raises:
        UsageError: there is no tokenizer.json.
        MalformedError: it contradicts itself, or holds more tokens than the embedding has rows.
        IncompatibleError: a kind, normaliser or pre-tokeniser that llama.cpp has no name for.
    """
    path = folder / "tokenizer.json"
    document = read_json(path)
    settings_path = folder / "tokenizer_config.json"
    settings = read_json(settings_path) if settings_path.is_file() else {}
    model = document.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        kind = model.get("type") if isinstance(model, dict) else None
        raise IncompatibleError(f"{path}: tokenizer {str(kind)[:20]!r}; byte-level and SentencePiece BPE are known")
    byte_level = _is_byte_level(document)
    tokens, types = _vocabulary(path, document, model, config.dimensions.vocabulary, byte_level=byte_level)
    ids = {text: index for index, text in enumerate(tokens)}
    bos = special_token(settings, "bos_token", ids, config.bos)
    return FolderTokenizer(
        path=path,
        kind="gpt2" if byte_level else "llama",
        pre=_pre_tokeniser(path, document, ignore_merges=bool(model.get("ignore_merges"))) if byte_level else "",
        tokens=tokens,
        types=types,
        merges=_merges(path, model),
        bos=bos,
        eos=special_token(settings, "eos_token", ids, config.eos),
        add_bos=bos is not None and begins_with(path, bos),
        add_space=not byte_level and _adds_space(path, document),
        chat_template=chat_template(folder, settings),
    )


def _vocabulary(
    path: Path, document: dict[str, Any], model: dict[str, Any], rows: int, *, byte_level: bool
) -> tuple[tuple[str, ...], tuple[TokenType, ...]]:
    texts: dict[int, str] = {}
    types: dict[int, TokenType] = {}
    unknown = model.get("unk_token")
    for text, index in model["vocab"].items():
        if type(index) is not int or not 0 <= index < rows or index in texts:
            raise MalformedError(f"{path}: token {text[:30]!r} has id {str(index)[:20]}; the embedding has {rows} rows")
        texts[index] = text
        is_byte = not byte_level and text in _BYTE_TOKENS
        types[index] = TokenType.BYTE if is_byte else TokenType.UNKNOWN if text == unknown else TokenType.NORMAL
    for added in document.get("added_tokens") or []:
        index, text = added.get("id"), added.get("content")
        if type(index) is not int or not 0 <= index < rows or not isinstance(text, str):
            raise MalformedError(
                f"{path}: added token {str(text)[:30]!r} has id {str(index)[:20]}, outside {rows} rows"
            )
        if types.get(index) is not TokenType.UNKNOWN:
            types[index] = TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED
        texts[index] = text
    for index in range(rows):  # embeddings are often padded to a round number
        if index not in texts:
            texts[index], types[index] = f"[PAD{index}]", TokenType.UNUSED
    ordered = range(rows)
    return tuple(texts[index] for index in ordered), tuple(types[index] for index in ordered)


def _merges(path: Path, model: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    merges = []
    for merge in model.get("merges") or []:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise MalformedError(f"{path}: merge {str(merge)[:40]!r} is no pair")
        merges.append((pair[0], pair[1]))
    return tuple(merges)


def _steps(value: object, key: str) -> list[dict[str, Any]]:
    """A pre-tokeniser or normaliser, or those that a sequence is made of."""
    if not isinstance(value, dict):
        return []
    inner = value.get(key)
    return [step for step in inner if isinstance(step, dict)] if isinstance(inner, list) else [value]


def _is_byte_level(document: dict[str, Any]) -> bool:
    return any(step.get("type") == "ByteLevel" for step in _steps(document.get("pre_tokenizer"), "pretokenizers"))


def _pre_tokeniser(path: Path, document: dict[str, Any], *, ignore_merges: bool) -> str:
    """The name under which llama.cpp knows how text is cut into words."""
    patterns: list[str] = []
    for step in _steps(document.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "Digits" and step.get("individual_digits"):
            patterns.append(r"\p{N}")
        elif step.get("type") == "Split":
            patterns.append(str((step.get("pattern") or {}).get("Regex")))
        elif step.get("type") == "ByteLevel":
            # Its own pattern is the one of gpt-2.
            patterns += [SPLITS["gpt-2"][0]] if step.get("use_regex", True) else []
        else:
            patterns.append(str(step.get("type")))
    for name, known in SPLITS.items():
        if tuple(patterns) == known and ignore_merges == (name == "llama-bpe"):
            return name
    raise IncompatibleError(
        f"{path}: cuts text into words in a way that llama.cpp has no name for here; known are {', '.join(SPLITS)}"
    )


def _adds_space(path: Path, document: dict[str, Any]) -> bool:
    """Whether a SentencePiece text is begun with a space; refuses other normalisers."""
    adds = False
    for step in _steps(document.get("normalizer"), "normalizers"):
        if step.get("type") == "Prepend" and step.get("prepend") == _SPACE:
            adds = True
        elif step.get("type") != "Replace" or step.get("content") != _SPACE:
            raise IncompatibleError(f"{path}: normaliser {str(step.get('type'))[:20]!r} is not known")
    for step in _steps(document.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") != "Metaspace":
            raise IncompatibleError(f"{path}: pre-tokeniser {str(step.get('type'))[:20]!r} is not known")
        adds = adds or step.get("prepend_scheme", "always") in ("always", "first")
    return adds


def special_token(settings: Mapping[str, Any], key: str, ids: Mapping[str, int], default: int | None) -> int | None:
    """Id of a special token that tokenizer_config.json names, else what config.json says."""
    value = settings.get(key)
    text = value.get("content") if isinstance(value, dict) else value
    found = ids.get(text) if isinstance(text, str) else None
    if found is not None:
        return found
    return default if default is not None and default < len(ids) else None


def begins_with(path: Path, bos: int) -> bool:
    """Whether tokenizer.json begins a text with this token."""
    ids: list[int] = Tokenizer.from_file(str(path)).encode("x").ids
    return ids[:1] == [bos]


def chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The chat template of a folder: a file of its own, or in tokenizer_config.json, where it may have a name."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        with path.open("rb") as file:
            data = file.read(_TEMPLATE_BYTES_MAX)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise MalformedError(f"{path}: not UTF-8 text") from error
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {str(each.get("name")): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return template if isinstance(template, str) and template else None
