"""Where tasks run: on the workers of a Client, or on Dask's scheduler in this process."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask
import distributed
from distributed.scheduler import KilledWorker
from distributed.system import MEMORY_LIMIT

_SHARE = 0.3  # of the workers' memory that the kept rows may take: less than Dask's 0.6 if one of two workers is lost
_PATIENCE = 60.0  # seconds without any worker, or without the scheduler, after which a computation ends
_INTERVAL = 2.0  # seconds between two looks at the workers


@dataclass(frozen=True)
class Scheduler:
    """The Client whose workers compute, or None for Dask's scheduler in this process."""

    client: Any

    @classmethod
    def current(cls) -> Scheduler:
        """Return the scheduler that ``dask.compute`` would use now."""
        owner = getattr(dask.base.get_scheduler(), "__self__", None)
        return cls(owner if isinstance(owner, distributed.Client) else None)

    def memory(self) -> int:
        """Return the bytes that rows may take which are kept in memory from pass to pass."""
        if self.client is None:
            return int(_SHARE * MEMORY_LIMIT)
        limits = [each["memory_limit"] for each in self._workers().values()]
        return int(_SHARE * sum(limit or MEMORY_LIMIT for limit in limits))

    def compute(self, task: Any) -> Any:
        """Return the result of a task; raise what it raised, or ConnectionError where the workers are lost."""
        if self.client is None:
            return dask.compute(task)[0]
        with _losses_as_errors(self.client):
            future = self.client.compute(task)
            try:
                self._wait([future])
                return future.result()
            except KeyboardInterrupt:
                future.cancel()
                raise

    def keep(self, tasks: Sequence[Any]) -> list[Any]:
        """Return the tasks with their results in memory, where they were computed."""
        if self.client is None:
            return list(dask.persist(*tasks))
        with _losses_as_errors(self.client):
            kept = self.client.persist(list(tasks))
            futures = distributed.futures_of(kept)
            self._wait(futures)
            for future in futures:
                if future.status == "error":
                    future.result()
        return list(kept)

    def _wait(self, futures: Sequence[Any]) -> None:
        """Return when all have ended; raise ConnectionError where no worker is there to end them."""
        seen = time.monotonic()
        while True:
            try:
                distributed.wait(futures, timeout=_INTERVAL)
            except distributed.TimeoutError:
                if self.client.status == "running" and self._workers():
                    seen = time.monotonic()
                elif time.monotonic() - seen > _PATIENCE:
                    raise ConnectionError(f"the Dask cluster has had no worker for {_PATIENCE:g} seconds") from None
            else:
                return

    def _workers(self) -> dict[str, Any]:
        """Return what the scheduler knows of its workers."""
        try:
            found = self.client.scheduler_info(n_workers=-1)
        except TypeError:  # distributed before 2025.5 lists all of them
            found = self.client.scheduler_info()
        return dict(found["workers"])


@contextmanager
def _losses_as_errors(client: Any) -> Iterator[None]:
    """Raise ConnectionError, in one line, where workers or tasks are lost for good."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")  # the coefficients of many classes
            yield
    except KilledWorker as error:
        raise ConnectionError(
            "a partition was lost with each worker that computed it: a worker's memory is too small for it, "
            "or it stops the process; make partitions smaller or memory_limit larger"
        ) from error
    except ConnectionError:
        raise
    except Exception as error:
        if client.status == "running" and not isinstance(error, distributed.CancelledError):
            raise
        raise ConnectionError("the Dask cluster lost the tasks: its Client was closed or restarted") from error
