"""What goes wrong on purpose: faults as data, and the script that chooses them.

A `Fault` says *what* happens, *where* in the answer, and *when*, that is to which requests.

    where    head     nothing of the answer has been sent
             first    headers have been sent, no token yet
             event    `after` content events have been sent
    what     status   another answer instead (only at head)
             stall    nothing more, for some seconds or for ever; with comments or without
             cut      the connection ends: as if complete, inside the body, or by reset
             error    an error event in the stream, which then ends (not at head)
             write    exact bytes into the stream, which then goes on (not at head)
             link     from here on so many bytes per second
    when     by number of request, by count, by seeded share, by path, by model, by time

An answer that is not streamed has no events: what is to happen at `first` or `event` then
happens to the body (`stall` delays it, `cut` halves it, `error` replaces it, under 200).

The first fault of a script whose `when` matches is taken; a request suffers one fault. All
choices are pure: the twin hands in the request's number, the seconds since the script was
set and a uniform draw of the request's own luck, so a script does the same thing each time.

A new kind of fault is one struct here and one case in `reply`.
"""

from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import msgspec
import yaml

from forebay.testbed.twins.question import Refused

Where = Literal["head", "first", "event"]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(gt=0)]


class When(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which requests. All given conditions must hold; none given: to all."""

    #: numbers of requests, counted from 0 over all those the script has seen
    requests: tuple[int, ...] | None = None
    #: not the first so many of those that match the other conditions
    skip: Count = 0
    #: at most so many times
    times: Count | None = None
    #: this share of them, 0 to 1, by the request's own luck
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    #: shell pattern of the path, without the query
    path: str = "*"
    #: shell pattern of the model's name
    model: str = "*"
    #: shell pattern of the API key
    key: str = "*"
    #: only between these seconds after the script was set
    from_s: Seconds = 0.0
    until_s: Seconds | None = None
    #: with `until_s`: the window comes back each so many seconds (a provider that flaps)
    every_s: Annotated[float, msgspec.Meta(gt=0)] | None = None


class _What(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True
):
    """One kind of fault, by the name in `kind`."""


class Status(_What, frozen=True, kw_only=True, tag="status"):
    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    headers: dict[str, str] = {}
    #: the meaning, in words of question.Refused; None: by the status
    error: str | None = None
    #: exact body; None: the dialect's own error body
    body: str | None = None
    content_type: str = "application/json"


class Stall(_What, frozen=True, kw_only=True, tag="stall"):
    #: None: for ever
    seconds: Seconds | None = None
    #: an SSE comment that often meanwhile (not at head); None: nothing at all
    comment_every_s: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Cut(_What, frozen=True, kw_only=True, tag="cut"):
    #: complete: the body ends as HTTP ends one, the answer is not over; close: the
    #: connection closes inside the body; rst: it is reset. At head, close and rst only.
    how: Literal["complete", "close", "rst"] = "close"


class Error(_What, frozen=True, kw_only=True, tag="error"):
    error: str = "overloaded"
    message: str = "The server is overloaded."


class Write(_What, frozen=True, kw_only=True, tag="write"):
    text: str


class Link(_What, frozen=True, kw_only=True, tag="link"):
    bytes_per_s: Positive


What = Status | Stall | Cut | Error | Write | Link


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    what: What
    where: Where = "head"
    #: content events sent before it happens; with where `event`
    after: Count = 0
    when: When = When()
    #: for the log; "" takes the kind of `what`
    name: str = ""

    def __post_init__(self) -> None:
        if self.where != "head" and self.kind == "status":
            raise ValueError(f"fault 'status' happens at head, not at {self.where!r}")
        if self.where == "head" and self.kind in ("error", "write"):
            raise ValueError(f"fault {self.kind!r} needs a stream: where must be first or event")
        match self.what:
            case Status(error=str(kind)) | Error(error=str(kind)) if kind not in Refused.KINDS:
                raise ValueError(f"no error {kind!r}; there are {', '.join(Refused.KINDS)}")
            case Stall(comment_every_s=float()) if self.where == "head":
                raise ValueError("a comment needs a stream: where must be first or event")
            case Cut(how="complete") if self.where == "head":
                raise ValueError("a body that ends needs a head: cut by close or rst at head")
        if self.after and self.where != "event":
            raise ValueError(f"`after` goes with where: event, not with {self.where!r}")

    @property
    def kind(self) -> str:
        return str(type(self.what).__struct_config__.tag)

    @property
    def label(self) -> str:
        return self.name or self.kind


class Request(msgspec.Struct, frozen=True):
    """What a script sees of a request."""

    number: int
    path: str
    model: str
    key: str
    #: seconds since the script was set
    at_s: float
    #: uniform in (0, 1)
    draw: float


class Script:
    """Faults in order, and how often each was looked at and taken."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        self._matched = [0] * len(faults)
        self._taken = [0] * len(faults)

    @classmethod
    def decode(cls, text: bytes | str) -> "Script":
        """From YAML or JSON: a list of faults, or an object with the member `faults`.

        Raises ValueError that says where the script is wrong.
        """
        try:
            data: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"the fault script is neither YAML nor JSON: {error}") from None
        if isinstance(data, dict):
            data = data.get("faults")
        try:
            return cls(msgspec.convert(data or [], list[Fault]))
        except msgspec.ValidationError as error:
            raise ValueError(f"the fault script is wrong: {error}") from None

    def choose(self, request: Request) -> Fault | None:
        """The fault that this request suffers, None for most."""
        for at, fault in enumerate(self.faults):
            if not _matches(fault.when, request):
                continue
            self._matched[at] += 1
            when = fault.when
            if self._matched[at] <= when.skip:
                continue
            if when.times is not None and self._taken[at] >= when.times:
                continue
            self._taken[at] += 1
            return fault
        return None

    def describe(self) -> list[dict[str, Any]]:
        return [
            {"fault": msgspec.to_builtins(fault), "matched": matched, "taken": taken}
            for fault, matched, taken in zip(self.faults, self._matched, self._taken, strict=True)
        ]


def _matches(when: When, request: Request) -> bool:
    at_s = request.at_s
    if when.every_s:
        at_s %= when.every_s
    return (
        (when.requests is None or request.number in when.requests)
        and request.draw < when.share
        and at_s >= when.from_s
        and (when.until_s is None or at_s < when.until_s)
        and fnmatchcase(request.path, when.path)
        and fnmatchcase(request.model, when.model)
        and fnmatchcase(request.key, when.key)
    )
