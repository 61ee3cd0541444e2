# The echo server with asyncio's streams, as their documentation shows them.
# Usage: python3 asyncio_echo.py HOST PORT
import asyncio
import sys


async def talk(reader, writer):
    writer.write(b"Welcome to the Reactor Server.\n")
    writer.write(b"Send me text lines and conclude with the BYE command.\n")
    while line := await reader.readline():
        text = line.decode().rstrip("\r\n")
        writer.write(f"> {text.upper()}\n".encode())
        if text.lower() == "bye":
            break
    writer.close()


async def main():
    server = await asyncio.start_server(talk, sys.argv[1], int(sys.argv[2]))
    await server.serve_forever()


asyncio.run(main())
