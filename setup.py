"""The native extensions; everything else about the package stands in pyproject.toml."""

from setuptools import setup

setup(ext_modules=[])
