"""The way to the servers: an HTTP/1.1 client that hands bodies on as they come, without a task switch a piece.

A router relays every token of every stream. aiohttp's client costs a future, a task switch and a stream reader for
each; here the transport's callback calls the receiver straight away.
"""
