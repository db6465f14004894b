"""alignpro: the helper module of the Align-Pro companion book (arXiv 2501.03486)."""

import os
import sys
import warnings
from importlib import metadata

__version__ = "0.1.0"

# TRL and the Hub's libraries report their use to the Hub. Here they do so only if you ask for it.
# They read this variable when they are imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# On Colab the first cell may install a newer one than the session has loaded, which cannot work.
_pyarrow = sys.modules.get("pyarrow")
if _pyarrow and _pyarrow.__version__ != metadata.version("pyarrow"):
    raise ImportError("pyarrow was exchanged after it was loaded: restart the session, then go on")

# These come from libraries, do not help a reader, and would print paths into the book's pages.
warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
