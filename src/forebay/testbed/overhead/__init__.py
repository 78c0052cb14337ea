"""What Forebay costs: CPU per request and per event, beside nginx, in one run.

`python -m forebay.testbed.overhead` (make bench) prints the figures of docs/benchmarks.md.
Wall time on a shared machine lies; CPU time of all Forebay processes per operation doesn't,
and ratios are taken within one run, against nginx doing the least that can be done.
"""
