"""alignpro: the helper module of the Align-Pro companion book (arXiv 2501.03486)."""

import os
import warnings

__version__ = "0.1.0"

# TRL and the libraries below it tell the Hub how they are used: not from here, unless that is asked
# for. They read this when they are imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# Both come from libraries, are of no use to a reader, and would print paths into the book's pages.
warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
