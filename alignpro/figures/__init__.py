"""Every figure of the book, one function each, drawn from a tidy DataFrame.

Start with `style`: its colours and labels are shared by all. Each other module has the figures of
one part of the book and imports nothing else of the package.
"""
