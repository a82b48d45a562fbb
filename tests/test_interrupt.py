"""Ctrl-C while a loop ends: it always gets the user out of an exit that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

_HUNG = """
    import asyncio, sys
    from asyncio_loop_local import LoopVar, enter, singleton
    import uvloop

    class Resource:
        def __init__(self, name, hangs=False, stubborn=False):
            self.name, self.hangs, self.stubborn = name, hangs, stubborn
        async def __aenter__(self):
            return self
        async def __aexit__(self, *exc_info):
            print("exit", self.name, flush=True)
            while self.hangs:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    print("cancelled", self.name, flush=True)
                    if not self.stubborn:
                        raise
            print("exited", self.name, flush=True)

    variables = []

    async def main():
        for resource in Resource("1"), Resource("2", hangs=True, stubborn="stubborn" in sys.argv), Resource("3"):
            match sys.argv[2]:
                case "entered": await enter(resource)
                case "with close=": singleton(lambda: resource, close=Resource.__aexit__)()
                case "of a variable":
                    variables.append(LoopVar("variable", close=Resource.__aexit__))
                    variables[-1].set(resource)

    def by_hand(loop):
        loop.run_until_complete(main())
        try:
            loop.close()
        finally:
            assert loop.is_closed()

    try:
        match sys.argv[1]:
            case "run": asyncio.run(main())
            case "uvloop": uvloop.run(main())
            case "close": by_hand(asyncio.new_event_loop())
            case "close-uvloop": by_hand(uvloop.new_event_loop())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


_NEVER_DONE = """
    import asyncio, sys
    from asyncio_loop_local import singleton
    import uvloop

    class Client:
        pass

    async def close(client):
        try:
            if "later" in sys.argv:
                asyncio.get_running_loop().call_soon(client_for)
                await asyncio.sleep(0)
            else:
                client_for()
        except RuntimeError as error:
            print(error)
            return
        print("close", flush=True)
        await asyncio.Event().wait()

    client_for = singleton(Client, close=close)

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: print("error", flush=True))
        client_for()

    def by_hand(loop):
        loop.run_until_complete(main())
        loop.close()

    try:
        match sys.argv[1]:
            case "run": asyncio.run(main())
            case "uvloop": uvloop.run(main())
            case "close": by_hand(asyncio.new_event_loop())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def with_interrupts(*arguments: str, interrupt_at: list[str], program: str = _HUNG) -> list[str]:
    """What the program prints that gets SIGINT each time when it has printed one of these lines."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line.strip())
            if lines[-1] in interrupt_at:
                process.send_signal(signal.SIGINT)
        stderr = process.stderr.read()
        assert process.wait(10) == 0, stderr
        assert stderr == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    return lines


@pytest.mark.parametrize("end", ["run", "uvloop", "close", "close-uvloop"])
@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("opened", ["entered", "with close=", "of a variable"])
def test_ctrl_c_gets_the_user_out_of_a_hung_exit(end: str, opened: str, stubborn: bool) -> None:
    """It cancels the exit in progress, the others run, then KeyboardInterrupt is raised; a second one leaves a stubborn exit."""
    arguments = [end, opened, *(["stubborn"] if stubborn else [])]
    assert with_interrupts(*arguments, interrupt_at=["exit 2", *(["cancelled 2"] if stubborn else [])]) == [
        *("exit 3", "exited 3"),
        *("exit 2", "cancelled 2"),
        *("exit 1", "exited 1"),
        "interrupted",
    ]


@pytest.mark.parametrize("end", ["run", "uvloop", "close"])
@pytest.mark.parametrize("when", ["at once", "later"])
def test_ctrl_c_gets_the_user_out_of_exits_that_each_open_the_next_one(end: str, when: str) -> None:
    """Nothing more is opened once Ctrl-C has come during the exit of something that was itself opened by an exit."""
    lines = with_interrupts(end, when, interrupt_at=["close"], program=_NEVER_DONE)
    refused = "nothing more is opened while everything on this loop ends: "
    assert [line.partition("Ctrl-C")[0] for line in lines] in (
        ["close", "close", refused, "interrupted"],
        ["close", "close", "error", "close", "interrupted"],
    )
