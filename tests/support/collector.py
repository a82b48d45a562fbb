"""The garbage collector, out of the way of tests that are about what is freed without it."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def frozen() -> Generator[None]:
    """In the block, collections do not look at objects that were alive before."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def disabled() -> Generator[None]:
    """In the block, only reference counting frees anything, but for collections that the test makes; they are quick."""
    with frozen():
        gc.disable()
        try:
            yield
        finally:
            gc.enable()
