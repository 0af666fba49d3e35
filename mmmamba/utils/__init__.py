"""What the command-line tools share, and nothing else uses.

The folder ``analysis`` holds what the tools that measure models share.
"""
