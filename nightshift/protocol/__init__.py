"""What both sides must agree on to the byte.

Pure: no socket, clock, database, asyncio, grpc or torch; randomness and time are arguments.
"""
