"""The lock of a run: who trains it holds ``run.lock``, from before the first write to after the last.

The lock is an flock. It belongs to the open file and not to a process, so that a launcher takes it and hands the
descriptor to the trainer without a gap; the kernel drops it when the last holder dies, however that happens. No clock,
boot time or reused pid can make a living trainer look dead, or a dead one alive.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from accl.errors import BusyError, DamagedError, RunError
from accl.files import NotAFileError, open_regular
from accl.store.files import open_run_file
from accl.store.rundir import RunDir
from accl.text import printable

# Who probes a lock holds it for an instant, so that taking it is tried for longer than any probe takes.
ACQUIRE_S = 0.5
TRY_AGAIN_S = 0.01
SIGNATURE_BYTES = 4096  # at most, of the line in the lock file

# Environment variable with the descriptor of the lock that a trainer inherits.
LOCK_VARIABLE = "ACCL_LOCK_FD"

# Purposes of a holder. The first two are the life of a trainer; any other holder only keeps trainers away.
STARTING = "starting"
TRAINING = "training"
MERGING = "merging measurements"
REMOVING = "removing"
PRUNING = "pruning"
TESTING = "testing"
PAUSING = "pausing"

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


@dataclass(frozen=True)
class Holder:
    """Process that holds a lock, as it says in the lock file: empty and 0 where the file does not say.

    Attributes:
        since: time at which the lock was taken, as ISO 8601 with a blank and the offset from UTC.
        purpose: what for: `STARTING`, `TRAINING`, `MERGING`, `REMOVING`, `PRUNING`, `TESTING` or `PAUSING`.
    """

    host: str = ""
    pid: int = 0
    since: str = ""
    purpose: str = ""

    @property
    def trains(self) -> bool:
        """Whether a trainer lives; a holder that does not say is taken for one."""
        return self.purpose not in (MERGING, REMOVING, PRUNING, TESTING, PAUSING)

    def __str__(self) -> str:
        if not self.pid:
            return "a process that does not say who it is"
        doing = f" ({self.purpose})" if self.purpose else ""
        return printable(f"process {self.pid} on {self.host} since {self.since}{doing}")


class Proof(NamedTuple):
    """Proof by a lock: held by someone, free, or no proof (``held`` is None) where there is no lock to look at."""

    held: bool | None
    holder: Holder = Holder()


def probe(run: RunDir) -> Proof:
    """Look whether the lock of a run is held, without writing anything and without waiting."""
    try:
        descriptor = open_run_file(run.lock)
    except (FileNotFoundError, DamagedError):
        return Proof(None)
    try:
        # Shared, so that those who look do not see each other, and a file opened for reading is enough.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return Proof(False)
    except BlockingIOError:
        return Proof(True, _read_holder(descriptor))
    except OSError:
        return Proof(None)
    finally:
        os.close(descriptor)


def holder(run: RunDir) -> Holder | None:
    """Return the process that holds the lock of a run; None when it is free or there is none."""
    proof = probe(run)
    return proof.holder if proof.held else None


class RunLock:
    """The lock of one run, held by this process until `release`, or as long as one that it was handed to lives.

    Attributes:
        descriptor: the open lock file, to hand to a child process.
        works: whether the file system has locks. Where it has none the lock excludes nobody, and the heartbeat in
            ``state.json`` decides who lives.
        created: whether there was no lock file, which therefore proves nothing about earlier trainers.
    """

    def __init__(self, run: RunDir, descriptor: int, works: bool, created: bool) -> None:
        self._run = run
        self.descriptor, self.works, self.created = descriptor, works, created
        self._purpose, self._signed = "", False

    @classmethod
    def acquire(cls, run: RunDir, purpose: str, wait_s: float = ACQUIRE_S) -> RunLock:
        """Take the lock of a run and write into it who holds it and what for, if that excludes others.

        Args:
            wait_s: seconds to try while another process holds it; 0 tries once.

        Raises:
            BusyError: another process holds it.
            DamagedError: ``run.lock`` is a folder, a link, a pipe or a device.
            RunError: the file cannot be made or opened.
        """
        deadline = time.monotonic() + wait_s
        while True:
            descriptor, created = _open(run.lock)
            try:
                lock = cls(run, descriptor, _try_lock(run.lock, descriptor), created)
                if lock.is_current():
                    if lock.works:  # otherwise there may be another, whose signature it is not ours to replace
                        lock.sign(purpose)
                    return lock
                os.close(descriptor)  # replaced between opening and locking
            except BlockingIOError:
                busy = _read_holder(descriptor)
                os.close(descriptor)
                if time.monotonic() >= deadline:
                    hint = f"See: accl show {run.typed}" if busy.trains else "Try again in a moment."
                    raise BusyError(f"{run.id} is held by {busy}.", hint) from None
                time.sleep(TRY_AGAIN_S)
            except BaseException:
                os.close(descriptor)
                raise

    @classmethod
    def adopt(cls, run: RunDir, descriptor: int, purpose: str) -> RunLock | None:
        """Take over a lock whose descriptor was inherited; None when the descriptor is not that of the lock."""
        lock = cls(run, descriptor, True, False)
        try:
            if not lock.is_current():
                return None
            lock.works = _try_lock(run.lock, descriptor)  # succeeds at once for who holds it already
            os.set_inheritable(descriptor, False)
        except (OSError, OverflowError):
            return None
        lock.sign(purpose)
        return lock

    def sign(self, purpose: str, pid: int | None = None) -> None:
        """Write into the lock file who holds it: this process, or ``pid`` that it was handed to."""
        since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        self._purpose = purpose
        mine = Holder(socket.gethostname(), pid or os.getpid(), since, purpose)
        line = json.dumps(asdict(mine)).encode() + b"\n"
        with suppress(OSError):  # a full disk or a file of another user: the lock holds all the same
            os.ftruncate(self.descriptor, os.pwrite(self.descriptor, line, 0))
            self._signed = True

    def still_ours(self) -> bool:
        """Take the lock again when its file was deleted or replaced; False when another trainer has taken it.

        Where locks do not work, the last to sign the file has it.

        Raises:
            OSError, RunError: there is no telling, since the file cannot be made or opened.
        """
        if self.is_current():
            said = _read_holder(self.descriptor)
            ours = said.pid in (0, os.getpid()) and said.host in ("", socket.gethostname())
            return ours or self.works or not self._signed
        try:
            again = RunLock.acquire(self._run, self._purpose)
        except BusyError:
            return not probe(self._run).holder.trains
        self.release()
        self.descriptor, self.works, self._signed = again.descriptor, again.works, again._signed
        return True

    def release(self) -> None:
        """Let go of the lock. A process that it was handed to keeps it: unlocking would take it from both."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def abandon(self) -> None:
        """Let go of a lock that was not used, and remove a file that was made for it: it would prove too much."""
        if self.created and self.is_current():
            self._run.lock.unlink()
        self.release()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.release()

    def is_current(self) -> bool:
        """Return whether the file that is open is the one that stands in the run directory."""
        try:
            there = os.lstat(self._run.lock)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self.descriptor))


def _open(path: Path) -> tuple[int, bool]:
    """Open the lock file, made when missing; returns the descriptor and whether it was made."""
    try:
        with suppress(FileExistsError):
            return open_regular(path, os.O_RDWR | os.O_CREAT | os.O_EXCL), True
        try:
            return open_regular(path, os.O_RDWR), False
        except PermissionError:  # of another user who shares the folder: one that can be read can be locked
            return open_regular(path), False
    except NotAFileError as error:
        hint = f"Nothing of a run is in it. Remove it: rm -r {path}"
        raise DamagedError(f"{path} is not a file.", hint) from error
    except OSError as error:
        raise RunError(f"{path} cannot be opened ({error.strerror}).", "Is the runs folder yours?") from error


def _try_lock(path: Path, descriptor: int) -> bool:
    """Lock an open file; False where the file system has no locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise RunError(f"{path} cannot be locked ({error.strerror}).", "Is its file system alive?") from error
    return True


def _read_holder(descriptor: int) -> Holder:
    """Read who signed an open lock file; whatever else stands there counts as not said."""
    try:
        said = Holder(**json.loads(os.pread(descriptor, SIGNATURE_BYTES, 0)))
    except (OSError, ValueError, TypeError, RecursionError):
        return Holder()
    # Anyone may have written the file: text must be text, and a pid one that the kernel can have given.
    texts = (said.host, said.since, said.purpose)
    whole = all(type(text) is str for text in texts) and type(said.pid) is int and 0 < said.pid < 2**31
    return said if whole else Holder()
