"""A queue that deals turns to callers, so that a greedy one waits behind itself and nobody else."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items of several callers; callers take turns, each caller's own items keep their order.

    Args:
        caller_of: Whose an item is.
    """

    def __init__(self, caller_of: Callable[[T], str]) -> None:
        self._caller_of = caller_of
        # Callers in the order of their turns; one without items is not there.
        self._queues: OrderedDict[str, deque[T]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        for queue in self._queues.values():
            yield from queue

    @property
    def callers(self) -> int:
        """Number of callers with items."""
        return len(self._queues)

    def count(self, caller: str) -> int:
        """Number of a caller's items."""
        return len(self._queues.get(caller, ()))

    def push(self, item: T) -> None:
        """Appends an item to those of its caller."""
        self._queues.setdefault(self._caller_of(item), deque()).append(item)
        self._size += 1

    def remove(self, item: T) -> bool:
        """Takes an item out; False if it is not there."""
        caller = self._caller_of(item)
        queue = self._queues.get(caller)
        if queue is None or item not in queue:
            return False
        queue.remove(item)
        self._taken(caller, queue)
        return True

    def take(self, limit: int, key_of: Callable[[T], object]) -> list[T]:
        """Takes the item whose turn it is, and others of equal key, turn by turn.

        Args:
            limit: Most items.
            key_of: Only items of one key come together.
        """
        if self._size == 1:
            caller, queue = self._queues.popitem()
            self._size = 0
            return [queue[0]]
        taken: list[T] = []
        key: object = None
        skipped: dict[str, None] = {}
        misses = 0
        while len(taken) < limit and self._queues:
            caller, queue = next(iter(self._queues.items()))
            if not taken:
                key = key_of(queue[0])
            found = next((item for item in queue if key_of(item) == key), None)
            if found is None:
                # No item of this batch's kind: keeps its turn for the next one.
                skipped[caller] = None
                misses += 1
                self._queues.move_to_end(caller)
                if misses >= len(self._queues):
                    break
                continue
            misses = 0
            queue.remove(found)
            taken.append(found)
            self._taken(caller, queue)
            if caller in self._queues:
                self._queues.move_to_end(caller)
        for caller in reversed(skipped):
            if caller in self._queues:
                self._queues.move_to_end(caller, last=False)
        return taken

    def _taken(self, caller: str, queue: deque[T]) -> None:
        self._size -= 1
        if not queue:
            del self._queues[caller]
