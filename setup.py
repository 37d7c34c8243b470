"""Metadata live in pyproject.toml; this file is what Beam's --setup_file asks for."""

from setuptools import setup

setup()
