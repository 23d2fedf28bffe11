from __future__ import annotations

import numpy as np
import pytest

from edge_client.data.errors import DataError
from edge_client.data.examples import Conversation, Message, Passage, question
from edge_client.data.prepare import package_tokenizer
from edge_client.data.templates import ChatTemplate, PlainTemplate
from edge_client.data.tokenizer import Tokenizer
from edge_client.data.tokens import NOT_RENDERED, TOO_LONG, encode_prompt, tokenise
from nightshift.packages.package import ModelPackage

PLAIN = PlainTemplate()


@pytest.fixture(scope="module")
def tokenizer(stories: ModelPackage) -> Tokenizer:
    return package_tokenizer(stories)


def test_the_mask_covers_the_completion_and_its_end(tokenizer: Tokenizer) -> None:
    (example,), skipped = tokenise([question("wake me up", "alarm")], tokenizer, PLAIN, max_tokens=64)
    prompt, answer = tokenizer.encode("wake me up\n"), tokenizer.encode("alarm")
    assert example.tokens.tolist() == [1, *prompt, *answer, 2]
    assert example.answer.tolist() == [False] * (1 + len(prompt)) + [True] * (len(answer) + 1)
    assert skipped == {}


def test_the_context_is_encoded_as_the_prompt_is_at_inference(tokenizer: Tokenizer) -> None:
    (example,), _ = tokenise([question("wake me up", "alarm")], tokenizer, PLAIN, max_tokens=64)
    prompt = encode_prompt(PLAIN.prompt([Message("user", "wake me up")]), tokenizer)
    assert example.tokens[~example.answer].tolist() == prompt


def test_a_template_that_writes_bos_gets_only_one(tokenizer: Tokenizer) -> None:
    template = ChatTemplate("{{ bos_token }}{{ messages[0]['content'] }}", bos_token="<s>", eos_token="</s>")
    tokens = encode_prompt(template.prompt([Message("user", "hi")]), tokenizer)
    assert tokens.count(1) == 1
    assert tokens[0] == 1


def test_an_answer_beyond_the_length_is_skipped_and_a_long_one_is_cut(tokenizer: Tokenizer) -> None:
    rows = [question("hello " * 50, "alarm"), question("hi", "one two three four five six seven eight")]
    examples, skipped = tokenise(rows, tokenizer, PLAIN, max_tokens=12)
    assert skipped == {TOO_LONG: 1}
    assert [example.length for example in examples] == [12]
    assert examples[0].answer[-1]


def test_all_answers_of_a_conversation_are_learnt(tokenizer: Tokenizer) -> None:
    turns = Conversation(
        (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d"))
    )
    (example,), _ = tokenise([turns], tokenizer, PLAIN, max_tokens=64)
    learnt = example.tokens[example.answer].tolist()
    assert learnt == [*tokenizer.encode("b"), 2, *tokenizer.encode("d"), 2]


def test_a_conversation_that_the_template_refuses_is_counted(tokenizer: Tokenizer) -> None:
    template = ChatTemplate("{{ raise_exception('no') }}", bos_token="", eos_token="")
    assert tokenise([question("a", "b")], tokenizer, template, max_tokens=64) == ([], {NOT_RENDERED: 1})


@pytest.mark.parametrize("max_tokens", [2, 3, 7, 64])
def test_every_token_of_a_passage_after_the_first_is_predicted_once(tokenizer: Tokenizer, max_tokens: int) -> None:
    text = "Once upon a time there was a little girl."
    whole = [1, *tokenizer.encode(text), 2]
    examples, _ = tokenise([Passage(text)], tokenizer, PLAIN, max_tokens=max_tokens)
    predicted = np.concatenate([example.tokens[1:] for example in examples])
    assert predicted.tolist() == whole[1:]
    assert all(example.answer.all() for example in examples)
    assert max(example.length for example in examples) <= max_tokens


def test_one_token_is_no_example(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="at least 2"):
        tokenise([], tokenizer, PLAIN, max_tokens=1)
