"""A model over HTTP: `rpbert serve`, with a page to look at it (`page/`).
`server` accepts a request, `guard` holds it to the limits, `intake` makes posts of it, `batching`
runs them through the model together with those of other clients, and `app` answers."""
