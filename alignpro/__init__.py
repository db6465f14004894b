"""alignpro: the helper module of the Align-Pro companion book (arXiv 2501.03486)."""

import warnings

__version__ = "0.1.0"

# Both come from libraries, are of no use to a reader, and would print paths into the book's pages.
warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
