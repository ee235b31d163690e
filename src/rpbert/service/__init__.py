"""A model over HTTP: `rpbert serve`, with a page to look at it (`page/`).

A request walks through the room once: `server` accepts it, `guard` holds it to its limits and to
the keys, `intake` makes posts of it, `batching` runs them through the model together with those of
other clients, and `app` answers.
"""
