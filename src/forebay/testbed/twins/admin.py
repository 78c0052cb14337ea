"""`/_twin/…`: what a twin says about itself, and its script, over HTTP.

    GET    /_twin/state                  one line
    GET    /_twin/log?last=100           what it saw; keys of callers are masked
    DELETE /_twin/log
    GET    /_twin/bill                   total, and per model
    GET    /_twin/bill/{request id}
    GET    /_twin/script                 faults, how often each matched and struck
    PUT    /_twin/script                 replace it: YAML or JSON
    GET    /_twin/cpu                    CPU seconds of this process, user + system

No key is asked for: a twin listens on loopback and holds nothing that is worth one.
"""

import resource
from typing import TYPE_CHECKING, Any

import msgspec

from forebay.schema.usage import usd
from forebay.testbed.twins.connection import HttpRequest
from forebay.testbed.twins.faults import Script
from forebay.testbed.twins.question import Headers

if TYPE_CHECKING:
    from forebay.testbed.twins.twin import Twin

_DEFAULT_LAST = 100


def admin(twin: "Twin", request: HttpRequest) -> tuple[int, Headers, bytes]:
    """Status, headers and JSON body of the answer to an admin request."""
    status, data = _admin(twin, request)
    return status, [], msgspec.json.encode(data)


def _admin(twin: "Twin", request: HttpRequest) -> tuple[int, Any]:
    method, path = request.method, request.path.removeprefix("/_twin/")
    match method, path:
        case "GET", "state":
            return 200, {"state": twin.describe()}
        case "GET", "log":
            last = _last(request.query)
            return 200, {
                "total": twin.log.total,
                "entries": [seen.public() for seen in list(twin.log)[-last:]],
            }
        case "DELETE", "log":
            twin.log.clear()
            return 200, {}
        case "GET", "bill":
            bill = twin.bill
            return 200, {
                "total_nusd": bill.total_nusd,
                "total_usd": usd(bill.total_nusd),
                "count": bill.count,
                "requests": twin.log.total,
                "models": bill.models,
            }
        case "GET", _ if path.startswith("bill/"):
            charge = twin.bill.charges.get(path.removeprefix("bill/"))
            if charge is None:
                return 404, {"error": "nothing was charged for this request id"}
            return 200, msgspec.structs.asdict(charge) | {
                "usage": msgspec.structs.asdict(charge.usage)
            }
        case "GET", "script":
            return 200, {"faults": twin.script.describe()}
        case "PUT", "script":
            try:
                twin.set_script(Script.decode(request.body))
            except ValueError as error:
                return 400, {"error": str(error)}
            return 200, {"faults": twin.script.describe()}
        case "GET", "cpu":
            used = resource.getrusage(resource.RUSAGE_SELF)
            return 200, {"user_s": used.ru_utime, "system_s": used.ru_stime}
        case _:
            return 404, {"error": f"no {method} {request.path} here"}


def _last(query: str) -> int:
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name == "last" and value.isdecimal():
            return max(1, int(value))
    return _DEFAULT_LAST
