"""What an artist should know of a run that goes on: in the log, and under the node that samples."""

import importlib
import logging
from typing import Any

from comfy_execution.utils import get_executing_context

KEY = "sparse_guidance_notices"
"""Our entry in transformer_options during a run."""

_shown: set[str] = set()
"""Nodes of the editor that have a text of ours under them: it stays there until another one comes."""


class Notices:
    """What one run has said, each sentence once."""

    def __init__(self):
        self._said: list[str] = []

    def __deepcopy__(self, memo: dict) -> "Notices":
        """Old hosts copy the options of a model deeply at every clone; a run has one list."""
        return self

    def say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.append(sentence)
            logging.warning("Sparse Guidance: %s", sentence)
            show("\n".join(self._said))


def notices_of(transformer_options: dict[str, Any]) -> Notices:
    """Those of the run that these options belong to."""
    return transformer_options.get(KEY) or Notices()


def begin(model_options: dict[str, Any]) -> Notices:
    """Those of a run with options of its own, which may have begun already."""
    options = model_options.setdefault("transformer_options", {})
    if KEY not in options:
        options[KEY] = Notices()
        show("")
    return options[KEY]


def show(text: str) -> None:
    """Puts a text under the node that runs, in the editor that asked for it; an empty one takes away what was there."""
    running = get_executing_context()
    if running is None:  # nobody's node
        return
    server = importlib.import_module("server").PromptServer.instance
    if server.client_id is not None and (text or running.node_id in _shown):  # None is every editor that is open
        server.send_progress_text(text, running.node_id, server.client_id)
        (_shown.add if text else _shown.discard)(running.node_id)
