"""Callers: what is asked and when (`workload`), who asks (`driver`), what came (`histogram`).

The driver is an open loop: it sends when the schedule says so, whether or not earlier
answers have come, and measures from the scheduled moment. A closed loop would let a slow
system slow its own load down, and hide the wait of those who could not even ask
("coordinated omission").
"""
