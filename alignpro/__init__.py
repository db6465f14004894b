"""alignpro: the helper module of the Align-Pro companion book (arXiv 2501.03486)."""

__version__ = "0.1.0"
