"""`edge-client chat`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_client.cli.local_model import LocalModel, model_options
from edge_client.cli.options import Call, device_command
from edge_client.cli.streaming import interruptible, write, write_piece

if TYPE_CHECKING:
    from edge_client.engines.sampling import SamplingSettings
    from edge_client.serving.catalogue import Offer
    from edge_client.serving.dialogue import Dialogue

HELP = """\
/help            this list
/reset           forget the conversation; the system text stays
/system [TEXT]   show or set the text that stands before the conversation
/base            answer with the bare base model
/adapter [NAME]  list the adapters, or answer with one
/save PATH       write the conversation as chat JSONL
/quit            end; so does ctrl-d
ctrl-c stops an answer and keeps the conversation"""


@click.command(
    epilog="Example: edge-client chat --system 'Answer in one sentence.'",
    short_help="Talk with the model on this device.",
)
@model_options
@click.option("--system", default="", help="Text that stands before the conversation.")
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True, help="Longest answer.")
@click.option("--temperature", type=click.FloatRange(0, 100), default=0.7, show_default=True, help="0: the likeliest.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True)
@click.option("--seed", type=click.IntRange(0), help="Makes drawing repeatable.")
@device_command
def chat(
    call: Call,
    *,
    engine: str,
    base: bool,
    name: str | None,
    task: str | None,
    model: str | None,
    system: str,
    max_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
) -> None:
    """Talk with the model and adapter on this device; nothing leaves it.

    In a pipe every line is one question, and the answers come out as plain text.
    """
    from edge_client.cli.local_model import open_local_model
    from edge_client.engines.sampling import SamplingSettings
    from edge_client.serving.dialogue import Dialogue
    from nightshift.host.console import note

    sampling = SamplingSettings(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    local = open_local_model(call, engine=engine, base=base, name=name, task=task, model=model)
    with local.engine:
        for sentence in local.notes:
            note(f"note: {sentence}")
        conversation = _Conversation(local, Dialogue(system), sampling, terminal=sys.stdin.isatty())
        conversation.use(local.catalogue.resolve(None))
        conversation.run()


class _Conversation:
    """One run of the command."""

    def __init__(self, local: LocalModel, dialogue: Dialogue, sampling: SamplingSettings, *, terminal: bool) -> None:
        self._local = local
        self._dialogue = dialogue
        self._sampling = sampling
        self._terminal = terminal
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: _say(HELP),
            "/reset": self._reset,
            "/system": self._system,
            "/base": lambda _: self.use(local.catalogue.resolve(local.catalogue.base_name)),
            "/adapter": self._adapter,
            "/save": self._save,
        }

    def run(self) -> None:
        """Reads lines until there are none."""
        from nightshift.protocol.errors import NightshiftError

        for line in _lines(self._terminal):
            word, _, rest = line.strip().partition(" ")
            if not word:
                continue
            if word in {"/quit", "/exit"}:
                return
            try:
                if word in self._commands:
                    self._commands[word](rest.strip())
                elif word.startswith("/"):
                    _say(f"there is no {word}; see /help")
                else:
                    self._answer(line.strip())
            except NightshiftError as error:
                # What cannot be answered ends neither a terminal's conversation nor a pipe's, but a pipe wants to know.
                if not self._terminal:
                    raise
                _say(f"error: {error}")

    def use(self, offer: Offer) -> None:
        """Answers with this model from now on."""
        self._local.catalogue.attach(offer, self._local.engine)
        if self._terminal:
            _say(f"{offer.name} on {self._local.engine.kind.label}; /help lists what else can be typed")

    def _answer(self, text: str) -> None:
        from edge_client.serving.answering import Answer

        before = self._dialogue.forgotten
        self._dialogue.ask(text)
        said: list[str] = []
        try:
            prompt = self._dialogue.prompt(self._local.language.conversation, self._local.engine.context_tokens)
            if self._dialogue.forgotten > before:
                _say(f"(the conversation is long: its first {self._dialogue.forgotten} turns are forgotten)")
            answer = Answer(self._local.engine, self._local.language, prompt, self._sampling)
            with interruptible(self._local.engine):
                for piece in answer:
                    said.append(piece)
                    write_piece(piece)
        finally:
            if said:
                self._dialogue.answered("".join(said))
                write("\n")
            else:
                self._dialogue.take_back()

    def _reset(self, _rest: str) -> None:
        self._dialogue.reset()
        _say("forgotten")

    def _system(self, rest: str) -> None:
        if rest:
            self._dialogue.system = rest
        _say(f"system: {self._dialogue.system or '(none)'}")

    def _adapter(self, rest: str) -> None:
        catalogue = self._local.catalogue
        if rest:
            self.use(catalogue.resolve(rest))
            return
        names = [offer.name for offer in catalogue.offers() if offer.adapter is not None]
        _say("\n".join(names) or "there is no adapter for this model")

    def _save(self, rest: str) -> None:
        from nightshift.host.files import write_atomic
        from nightshift.protocol.errors import UsageError

        path = Path(rest).expanduser()
        if not rest or path.exists():
            raise UsageError(f"{path} exists already; choose another place" if rest else "expected /save PATH")
        try:
            write_atomic(path.absolute(), self._dialogue.to_line())
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
        _say(f"saved to {path}")


def _lines(terminal: bool) -> Iterator[str]:
    """What is typed, or what comes through the pipe; ctrl-c twice at the prompt ends."""
    if not terminal:
        yield from sys.stdin
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` editing and a history in memory
    interrupted = False
    while True:
        try:
            yield input("> ")
            interrupted = False
        except EOFError:
            write("\n")
            return
        except KeyboardInterrupt:
            write("\n")
            if interrupted:
                return
            interrupted = True
            _say("(ctrl-c again, ctrl-d or /quit ends)")


def _say(message: str) -> None:
    """Beside the conversation: on stderr, so that a pipe carries answers only."""
    from nightshift.host.console import note

    note(message)
