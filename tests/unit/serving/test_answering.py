"""Where an answer ends: the model's own end of a turn, a stop text, a limit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_client.data.examples import Message
from edge_client.data.prepare import package_tokenizer
from edge_client.data.templates import ChatTemplate, PlainTemplate
from edge_client.data.tokenizer import Tokenizer
from edge_client.engines.engine import EngineKind
from edge_client.engines.isolated import IsolatedEngine
from edge_client.engines.sampling import SamplingSettings
from edge_client.serving.answering import Answer, Language, end_tokens
from nightshift.packages.package import ModelPackage
from tests.support.stories import build_stories

# The beginning-of-sequence token stands in for <|im_end|> or <|eot_id|>: special, and not end-of-sequence.
TURNS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<s>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return build_stories(tmp_path_factory.mktemp("stories") / "package")


@pytest.fixture(scope="module")
def tokenizer(package: ModelPackage) -> Tokenizer:
    return package_tokenizer(package)


@pytest.fixture(scope="module")
def engine(package: ModelPackage) -> Iterator[IsolatedEngine]:
    with IsolatedEngine(package, EngineKind.ONNX, threads=1) as opened:
        yield opened


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>")


def test_the_token_that_ends_a_turn_is_found(tokenizer: Tokenizer) -> None:
    assert end_tokens(tokenizer, template(TURNS)) == {tokenizer.bos}
    assert end_tokens(tokenizer, template(TURNS.replace("<s>", "</s>"))) == frozenset(), "the engine ends there itself"
    assert end_tokens(tokenizer, template(TURNS.replace("<s>", " "))) == frozenset(), "a space is text"
    assert end_tokens(tokenizer, template("{{ raise_exception('no') }}")) == frozenset()
    assert end_tokens(tokenizer, PlainTemplate()) == frozenset()


def test_an_end_token_ends_the_answer(engine: IsolatedEngine, tokenizer: Tokenizer) -> None:
    prompt = [1, 403, 407]
    tokens = list(engine.generate(prompt, SamplingSettings(max_tokens=30)))
    ending = tokens[10]
    position = tokens.index(ending)
    language = Language(tokenizer, PlainTemplate(), frozenset([ending]))
    answer = Answer(engine, language, prompt, SamplingSettings(max_tokens=30))
    assert "".join(answer) == tokenizer.decode(tokens[:position])
    assert answer.finish_reason == "stop"
    assert answer.completion_tokens == position + 1


def test_limits_and_the_models_own_end(engine: IsolatedEngine, package: ModelPackage) -> None:
    language = Language.of(package)
    prompt = language.conversation([Message("user", "One day")])
    cut = Answer(engine, language, prompt, SamplingSettings(max_tokens=5))
    assert list(cut)
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 5)
    # This model's likeliest tale never ends by itself: the context does.
    whole = Answer(engine, language, prompt, SamplingSettings(max_tokens=9999))
    assert list(whole)
    assert (whole.finish_reason, whole.completion_tokens) == ("length", engine.context_tokens - len(prompt))
    # Nearly any token may come at this temperature, end-of-sequence among them.
    ends = set()
    for seed in range(8):
        drawn = Answer(engine, language, prompt, SamplingSettings(max_tokens=300, temperature=9.0, seed=seed))
        list(drawn)
        ends.add((drawn.finish_reason, drawn.completion_tokens < 300))
    assert ends == {("stop", True), ("length", False)}
