"""The operators' web pages: traces, and one trace to the byte. Server-rendered, no script."""

from forebay.console.app import Console

__all__ = ["Console"]
