"""alignpro: the helper module of the Align-Pro companion book (arXiv 2501.03486)."""

import os
import warnings

__version__ = "0.1.0"

# TRL and the Hub's libraries report their use to the Hub. Here they do so only if you ask for it.
# They read this variable when they are imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# These come from libraries, do not help a reader, and would print paths into the book's pages.
warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
