"""From the owner's data sources to token examples for one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_client.data.examples import Example
from edge_client.data.files import Skip
from edge_client.data.holdout import DEFAULT_FRACTION, split
from edge_client.data.sources import DataSource, read_rows
from edge_client.data.templates import Template, choose_template
from edge_client.data.tokenizer import Tokenizer
from edge_client.data.tokens import TokenExample, tokenise
from nightshift.packages.package import ModelPackage
from nightshift.protocol.manifest import FileRole


@dataclass(frozen=True, slots=True)
class PreparedData:
    """What there is to train and to measure on.

    Attributes:
        train: examples to train on.
        held_out: examples that are never trained on.
        skipped: reason -> number of rows that are not used.
    """

    train: list[TokenExample]
    held_out: list[TokenExample]
    skipped: Mapping[str, int]


def package_tokenizer(package: ModelPackage) -> Tokenizer:
    """Returns the tokenizer of a package.

    Raises:
        DataError: it does not load.
    """
    record = package.manifest.tokenizer
    return Tokenizer(package.path(FileRole.TOKENIZER), bos=record.bos, eos=record.eos, add_bos=record.add_bos)


def package_template(package: ModelPackage, tokenizer: Tokenizer) -> Template:
    """Returns the chat template of a package, or the plain one.

    Raises:
        DataError: the template cannot be used.
    """
    return choose_template(
        package.manifest.chat_template,
        bos_token=tokenizer.text_of(tokenizer.bos),
        eos_token=tokenizer.text_of(tokenizer.eos),
    )


def prepare(
    package: ModelPackage,
    sources: Sequence[DataSource],
    *,
    max_tokens: int,
    held_out_fraction: float = DEFAULT_FRACTION,
    max_examples: int = 100_000,
) -> PreparedData:
    """Reads sources, splits them by hash and tokenises both parts.

    Args:
        package: the model whose tokenizer and chat template are used.
        sources: data files; rows of all of them are taken together.
        max_tokens: longest example, in tokens.
        held_out_fraction: share kept out of training.
        max_examples: rows read at most, over all sources.

    Raises:
        DataError: a file, the tokenizer or the template cannot be used.
    """
    examples: list[Example] = []
    skipped: Counter[str] = Counter()
    for source in sources:
        for row in read_rows(source):
            if isinstance(row, Skip):
                skipped[row.reason.value] += 1
            elif len(examples) < max_examples:
                examples.append(row)
            else:
                break
    kept, held_out = split(examples, held_out_fraction)
    tokenizer = package_tokenizer(package)
    template = package_template(package, tokenizer)
    train_tokens, refused = tokenise(kept, tokenizer, template, max_tokens=max_tokens)
    held_out_tokens, refused_too = tokenise(held_out, tokenizer, template, max_tokens=max_tokens)
    skipped.update(refused)
    skipped.update(refused_too)
    return PreparedData(train_tokens, held_out_tokens, dict(skipped))
