"""The API dialects: pure conversions between wire shapes, and the watching of streams.

`endpoints` is the table of what a caller can ask; `translation` the seam to the pipeline.
"""
