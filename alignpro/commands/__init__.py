"""The command line, one function per command.

Start with `main`: it builds the parser and calls the function of the command.
"""
