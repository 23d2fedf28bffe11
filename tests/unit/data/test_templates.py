from __future__ import annotations

import pytest

from edge_client.data.errors import DataError
from edge_client.data.examples import Conversation, Message, question
from edge_client.data.templates import ChatTemplate, PlainTemplate, Segment, choose_template

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TWO_TURNS = Conversation(
    (Message("user", "hi"), Message("assistant", "hello"), Message("user", "bye"), Message("assistant", "see you"))
)


def chat(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>")


def test_without_a_chat_template_contents_and_line_breaks() -> None:
    assert PlainTemplate().segments(question("wake me", "alarm")) == [
        Segment("wake me\n", is_answer=False),
        Segment("alarm", is_answer=True, ends_sequence=True),
    ]
    assert PlainTemplate().prompt([Message("user", "wake me")]) == "wake me\n"


def test_answers_are_what_the_template_adds_for_them() -> None:
    segments = chat(CHATML).segments(TWO_TURNS)
    assert segments == [
        Segment("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", is_answer=False),
        Segment("hello<|im_end|>\n", is_answer=True),
        Segment("<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n", is_answer=False),
        Segment("see you<|im_end|>\n", is_answer=True),
    ]


def test_the_first_context_is_the_prompt_at_inference() -> None:
    template = chat(CHATML)
    for any_template in (template, PlainTemplate()):
        assert any_template.segments(TWO_TURNS)[0].text == any_template.prompt(TWO_TURNS.messages[:1])


def test_special_tokens_are_known_to_the_template() -> None:
    assert (
        chat("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}").prompt([Message("user", "x")]) == "<s>x</s>"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[99]['content'].upper() }}",
        "{{ 1 / 0 }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'x' * 1000 }}{% endfor %}{% endfor %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_that_misbehaves_is_refused(source: str) -> None:
    with pytest.raises(DataError, match="chat template"):
        chat(source).prompt([Message("user", "x")])


def test_a_template_that_rewrites_the_past_is_refused() -> None:
    source = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(DataError, match="rewrites earlier turns"):
        chat(source).segments(TWO_TURNS)


def test_a_template_that_does_not_parse_is_refused() -> None:
    with pytest.raises(DataError, match="does not parse"):
        chat("{% for %}")


def test_the_choice_is_the_models() -> None:
    assert isinstance(choose_template(None, bos_token="", eos_token=""), PlainTemplate)
    assert isinstance(choose_template(CHATML, bos_token="", eos_token=""), ChatTemplate)
