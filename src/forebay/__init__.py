"""Forebay: the layered gateway between applications and their language models."""

__version__ = "0.1.0"
