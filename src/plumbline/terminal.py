"""What every verb does at the terminal; imports nothing heavy."""

from __future__ import annotations

import os


def quiet_libraries() -> None:
    """Progress bars and advice of the libraries below would mix with a command's own."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
