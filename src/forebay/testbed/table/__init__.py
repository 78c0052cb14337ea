"""The benchmark table: the same ten thousand interactions with and without Forebay.

`rows` says what a row is, `children` starts the processes it needs, `bench` runs them one
after another and measures the rig, `report` prints. Nothing here knows what the numbers
ought to be.
"""
