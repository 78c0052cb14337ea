"""Provider twins: servers that speak, charge, limit and fail like the providers of the trade.

A `Twin` is one simulated provider on real sockets, or in memory in virtual time. Read in
this order: `facts` (what a model is like, as data, and the presets) → `hosted` and `engine`
(what happens to one question, as pure decisions) → `faults` (what goes wrong on purpose) →
`openai_*`, `anthropic`, `responses` (how it looks on the wire) → `reply` (the pacing of one
answer) → `twin` (where it all meets).

What a twin is not: a tokenizer (a token is four bytes, see `text`), a judge of quality (its
answers are word salad of the exact length asked for), or a measurement of any provider: its
numbers are those of docs/decisions/0007-testbed.md, most of them second-hand or assumed.
"""

from forebay.testbed.twins.facts import PRESETS, TwinConfig
from forebay.testbed.twins.twin import Twin

__all__ = ["PRESETS", "Twin", "TwinConfig"]
