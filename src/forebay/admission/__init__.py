"""Who may ask, how much and how fast.

So far who: the shape of a key and the table a worker looks it up in (`keys.py`), where keys
are kept (`key_store.py`), and who comes in without one (`door.py`).
"""
