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


@contextmanager
def always_on() -> Generator[None]:
    """In the block, it runs as often as it can: at the first allocation after each run."""
    thresholds = gc.get_threshold()
    with frozen():
        gc.set_threshold(1)
        try:
            yield
        finally:
            gc.set_threshold(*thresholds)
