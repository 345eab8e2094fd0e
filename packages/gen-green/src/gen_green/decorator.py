"""Wrap a function, or what it becomes when it is called (coroutine, generator), in a context manager.

A coroutine runs when it is awaited, and a generator when it is iterated: entering around the call alone would see
neither.
"""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

__all__ = ["wrapped"]


def wrapped(fn: Callable[..., Any], window: AbstractContextManager[Any]) -> Callable[..., Any]:
    """`fn` within `window`, from its start to its end; a function of the same kind.

    A generator's window spans from its first item to its end, with what happens between its items.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        with window:
            return fn(*args, **kwargs)

    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        with window:
            return await fn(*args, **kwargs)

    def generator(*args: Any, **kwargs: Any) -> Any:
        with window:
            return (yield from fn(*args, **kwargs))

    async def async_generator(*args: Any, **kwargs: Any) -> Any:
        with window:
            items = fn(*args, **kwargs)
            step = anext(items)
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    return
                try:
                    step = items.asend((yield item))
                except BaseException as error:  # thrown in, or closed
                    step = items.athrow(error)

    kinds = {
        inspect.iscoroutinefunction: coroutine,
        inspect.isgeneratorfunction: generator,
        inspect.isasyncgenfunction: async_generator,
    }
    kind = next((kind for is_kind, kind in kinds.items() if is_kind(fn)), call)
    return functools.wraps(fn)(kind)
