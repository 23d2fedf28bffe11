"""Which tokens an engine has already read, so that a conversation's next turn is not read from the start.

Keys and values of a token depend on the tokens before it and on the adapter, on nothing else. So what two
prompts begin with in common needs to be run once; the engine keeps the keys and values, this keeps the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence


class PromptCache:
    """The tokens whose keys and values the engine holds, in order."""

    def __init__(self) -> None:
        self._tokens: list[int] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._tokens)

    def keep(self, prompt: Sequence[int]) -> int:
        """Forgets what `prompt` does not begin with, and its last token, which is run again for its logits.

        Returns:
            How many tokens of the prompt remain; run the others.
        """
        same = 0
        for ours, theirs in zip(self._tokens, prompt[:-1], strict=False):
            if ours != theirs:
                break
            same += 1
        del self._tokens[same:]
        return same

    def forget(self) -> None:
        """Forgets everything: the adapter changed, the keys and values are somebody else's, or a run failed."""
        self._tokens.clear()

    def extend(self, tokens: Sequence[int]) -> None:
        """Takes note that these were run."""
        self._tokens.extend(tokens)
