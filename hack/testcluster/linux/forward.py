"""Forwards TCP connections from a socket of the host to an address in a network namespace.

Run as a program: ``forward.py SOCKET_FD NAMESPACE HOST PORT``. The listening socket, created by the parent, stays in
the host's namespace; connections that the program makes after entering the namespace come from inside it.
"""

import asyncio
import ctypes
import os
import socket
import sys
from contextlib import suppress

_CLONE_NEWNET = 0x40000000  # from <sched.h>; os.setns needs Python 3.12


def enter_namespace(path: str) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if library.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    with suppress(OSError, RuntimeError):
        target.write_eof()


async def _serve(listener: socket.socket, host: str, port: int) -> None:
    async def connected(near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        try:
            far_in, far_out = await asyncio.open_connection(host, port)
        except OSError:  # the server does not listen yet; the client's connection is closed, and it tries again
            near_out.close()
            return
        try:
            await asyncio.gather(_copy(near_in, far_out), _copy(far_in, near_out))
        finally:
            near_out.close()
            far_out.close()

    server = await asyncio.start_server(connected, sock=listener)
    await server.serve_forever()


def main() -> None:
    descriptor, namespace, host, port = sys.argv[1:]
    listener = socket.socket(fileno=int(descriptor))
    enter_namespace(namespace)
    asyncio.run(_serve(listener, host, int(port)))


if __name__ == "__main__":
    main()
