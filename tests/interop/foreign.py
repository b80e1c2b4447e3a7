# SPDX-License-Identifier: Apache-2.0
"""asyncio waits on an agent's fd: add_reader(), beside a timer of its own."""
import asyncio
import ctypes
import sys

lib = ctypes.CDLL(sys.argv[1])


async def main():
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    ticks = 0

    def ready():
        if lib.foreign_work() and not over.done():
            over.set_result(True)

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    beside = asyncio.create_task(tick())
    loop.add_reader(lib.foreign_fd(), ready)
    ready()
    await asyncio.wait_for(over, 20)
    loop.remove_reader(lib.foreign_fd())
    beside.cancel()
    return ticks


if lib.foreign_start(sys.argv[2].encode()):
    sys.exit("the echo does not answer")
ticks = asyncio.run(main())
full = lib.foreign_stop()
print(f"asyncio: {full} times full, {ticks} ticks")
sys.exit(full < 0)
