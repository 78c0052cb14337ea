"""Providers and catalogues without a network: built, never called."""

from typing import Any

from forebay.providers import Anthropic, AzureOpenAI, OpenAI, Provider
from forebay.testbed.virtual.loop import VirtualLoop
from forebay.testbed.virtual.world import VirtualWorld

CANARY = "sk-canary-0123456789abcdef"


def world() -> VirtualWorld:
    """One that is never run."""
    loop = VirtualLoop()
    loop.close()
    return VirtualWorld(loop, 0)


def openai(name: str = "openai", **settings: Any) -> Provider:
    settings = {"api_key": CANARY, "proxy": "off", "base_url": "http://x/v1", **settings}
    return OpenAI(**settings).build(name, world())


def anthropic(name: str = "anthropic", **settings: Any) -> Provider:
    settings = {"api_key": CANARY, "proxy": "off", "base_url": "http://x", **settings}
    return Anthropic(**settings).build(name, world())


def azure(name: str = "azure", **settings: Any) -> Provider:
    settings = {"api_key": CANARY, "proxy": "off", "base_url": "http://x", **settings}
    return AzureOpenAI(**settings).build(name, world())


def lines(head: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """A request head as its first line and its headers."""
    assert head.endswith(b"\r\n\r\n")
    first, *rest = head[:-4].split(b"\r\n")
    found = []
    for line in rest:
        name, _, value = line.partition(b": ")
        found.append((name, value))
    return first, found
