"""The echo server of the `websockets` documentation."""

import asyncio

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def echo(websocket):
    try:
        async for message in websocket:
            await websocket.send(message)
    except ConnectionClosed as gone:
        print("gone", gone.rcvd, gone.sent, flush=True)


async def main():
    async with serve(echo, "0.0.0.0", 9000, max_size=32 << 20) as server:
        await server.serve_forever()


asyncio.run(main())
