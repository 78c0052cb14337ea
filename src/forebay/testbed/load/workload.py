"""What is asked and when: arrivals, lengths and prompts of the benchmark, from one seed.

**Arrivals.** Those of a real chat service (Azure LLM inference trace 2023, conversation;
CC-BY-4.0; Patel et al., Splitwise, ISCA 2024), its first 10,000. Their order and local
burstiness are kept, their rate is changed: each time stamp becomes the share of requests
that would have come by then at an even rate, and that share is read off the rate curve that
we want (25/s, in the middle a spike of 40 s at 125/s; 240 s in all). Where the trace is not
at hand a Gamma renewal process with the trace's own variation (CV 1.09) takes its place, and
the workload's name says so.

**Lengths.** `calibration-a`: 1,125 tokens in, 375 out, each; with $5 and $25 per million
this is the $15,000 per million interactions of the table that the project set out from.
`azure`: the lengths that came with the arrivals, unscaled.

**Prompts.** Fresh each time: words in an order of the seed, a number first, so that no two
share a prefix that a cache could use. Exact repeats: none. Real chat traffic has about 1 %
(Mooncake, whole context); a share of ours would be a number that we chose.

**Deadline.** 30 s from the scheduled moment for the whole answer, the time-out that
published gateway comparisons use. Assumed, not measured of users.
"""

import csv
import gzip
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from forebay.testbed.twins.text import BYTES_PER_TOKEN, CORPUS_TOKENS, Corpus, marker

BASE_RATE = 25.0
SPIKE_RATE = 125.0
SPIKE_S = 40.0
INTERACTIONS = 10_000
DEADLINE_S = 30.0
A_INPUT_TOKENS = 1_125
A_OUTPUT_TOKENS = 375
#: coefficient of variation of the trace's inter-arrival times
TRACE_CV = 1.09
TRACE_FILE = "azure2023_conv_first30min.csv.gz"
#: an answer's bound in the requests; the trace's longest answer has 1,000 tokens
MAX_TOKENS = 1_024

Lengths = Literal["calibration-a", "azure"]


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """One interaction: when it starts, and what it is made of."""

    number: int
    at_s: float
    input_tokens: int
    output_tokens: int
    #: seconds between its start and its request (a search, say)
    before_s: float = 0.0


class Workload(msgspec.Struct, frozen=True):
    name: str
    arrivals: list[Arrival]
    notes: list[str]
    deadline_s: float = DEADLINE_S

    @property
    def span_s(self) -> float:
        return self.arrivals[-1].at_s if self.arrivals else 0.0


class Curve(msgspec.Struct, frozen=True):
    """A rate that has one spike in its middle."""

    count: int = INTERACTIONS
    base: float = BASE_RATE
    spike: float = SPIKE_RATE
    spike_s: float = SPIKE_S

    @property
    def before_s(self) -> float:
        """Seconds at the base rate on either side of the spike."""
        return (self.count - self.spike * self.spike_s) / self.base / 2

    def time_of(self, arrived: float) -> float:
        """When so many have arrived: the inverse of the rate's integral."""
        first = self.base * self.before_s
        in_spike = self.spike * self.spike_s
        if arrived <= first:
            return arrived / self.base
        if arrived <= first + in_spike:
            return self.before_s + (arrived - first) / self.spike
        return self.before_s + self.spike_s + (arrived - first - in_spike) / self.base

    def shortened(self, factor: float) -> "Curve":
        """The same rates for a part of the time."""
        return Curve(round(self.count * factor), self.base, self.spike, self.spike_s * factor)


def build(lengths: Lengths, seed: int, trace: Path | None, curve: Curve | None = None) -> Workload:
    """The benchmark's workload. `trace` None or absent: the Gamma fallback."""
    curve = curve or Curve()
    rng = random.Random(seed)  # noqa: S311 - a simulation
    notes = []
    if trace is not None and trace.is_file():
        rows = _read(trace, curve.count)
        name = str(lengths)
    else:
        if lengths == "azure":
            raise FileNotFoundError(
                f"The Azure lengths need {trace or TRACE_FILE}, which is not at hand."
            )
        rows = _gamma(curve.count, rng)
        name = f"{lengths} (Gamma arrivals)"
        notes.append(
            f"The trace {TRACE_FILE} is not at hand: arrivals are a Gamma renewal process "
            f"with its coefficient of variation, {TRACE_CV}."
        )
    end = rows[-1][0]
    arrivals = []
    for number, (at, input_tokens, output_tokens) in enumerate(rows):
        if lengths == "calibration-a":
            input_tokens, output_tokens = A_INPUT_TOKENS, A_OUTPUT_TOKENS
        at_s = curve.time_of(at / end * curve.count)
        arrivals.append(Arrival(number, at_s, max(input_tokens, LEAST_INPUT), output_tokens))
    return Workload(name, arrivals, notes)


def _read(trace: Path, count: int) -> list[tuple[float, int, int]]:
    with gzip.open(trace, "rb") as file:
        text = file.read().decode()
    rows = [
        (float(row["t_s"]), int(row["in_tokens"]), int(row["out_tokens"]))
        for row in csv.DictReader(io.StringIO(text))
    ]
    if len(rows) < count:
        raise ValueError(f"{trace} has {len(rows)} rows; {count} are needed.")
    return rows[:count]


def _gamma(count: int, rng: random.Random) -> list[tuple[float, int, int]]:
    shape = 1 / TRACE_CV**2
    at = 0.0
    rows = []
    for _ in range(count):
        at += rng.gammavariate(shape, 1 / shape)
        rows.append((at, A_INPUT_TOKENS, A_OUTPUT_TOKENS))
    return rows


#: the number and the marker of a prompt need this many tokens
LEAST_INPUT = 6


class Prompts:
    """The text of each interaction, made when it is needed: ~2 µs for 4,500 bytes."""

    def __init__(self, seed: int) -> None:
        # Another text than any twin's answers: a slice at a random place for each prompt.
        self._text = Corpus(seed ^ 0x9E3779B97F4A7C15).answer(b"\0\0\0\0", CORPUS_TOKENS)
        self._seed = seed

    def prompt(self, arrival: Arrival) -> bytes:
        """Exactly `4 · input_tokens` bytes, with the answer's length marked at its end."""
        size = arrival.input_tokens * BYTES_PER_TOKEN
        start = b"%d. " % arrival.number
        end = marker(arrival.output_tokens)
        # A simulation's luck: it must repeat.
        rng = random.Random(self._seed * 1_000_003 + arrival.number)  # noqa: S311
        place = rng.randrange(len(self._text))
        room = max(0, size - len(start) - len(end))
        body = self._text[place : place + room]
        while len(body) < room:
            body += self._text[: room - len(body)]
        return start + body + end


Extend = Callable[[Arrival], bytes]


class ChatBodies:
    """Request bodies of streamed chat completions; `extra` is put before each prompt."""

    def __init__(self, prompts: Prompts, model: str, extra: Extend | None = None) -> None:
        self._prompts = prompts
        self._extra = extra
        self._before = (
            b'{"model":"%b","stream":true,"max_tokens":%d,"messages":[{"role":"user","content":"'
            % (model.encode(), MAX_TOKENS)
        )

    def body(self, arrival: Arrival) -> bytes:
        extra = self._extra(arrival) if self._extra is not None else b""
        return self._before + extra + self._prompts.prompt(arrival) + b'"}]}'
