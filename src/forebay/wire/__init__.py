"""Bytes: the raw members of a JSON body, server-sent events, the upstream pool, replies."""
