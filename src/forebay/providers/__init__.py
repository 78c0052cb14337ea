"""Providers: their facts (data), how they are addressed, what their settings are.

A provider is one file with a tagged settings struct whose `build` makes the live `Provider`;
`Settings` is the union, and the union is the registry: config decodes by it.
"""

from forebay.providers.anthropic import Anthropic
from forebay.providers.azure import AzureOpenAI
from forebay.providers.openai import OpenAI
from forebay.providers.provider import Provider

Settings = OpenAI | AzureOpenAI | Anthropic

__all__ = ["Anthropic", "AzureOpenAI", "OpenAI", "Provider", "Settings"]
