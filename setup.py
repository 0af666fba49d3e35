"""Builds the package; everything declarative is in pyproject.toml."""

from setuptools import setup

setup()
