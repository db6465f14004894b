"""Every figure of the book, each drawn from a tidy DataFrame."""
