"""Accepts jobs, runs one at a time on the device, and deletes them when their time is over."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from segweave.data.case import Case
from segweave.formats import Geometry, label_name, read_case
from segweave.formats.guard import at_most, readable_size
from segweave.prediction import Session
from segweave.prediction.uncertainty import Uncertainty
from segweave.serve.collect import Collection
from segweave.serve.jobs import Job, JobTable
from segweave.serve.limits import Limits, RefusedError
from segweave.serve.messages import public_message, silence_readers, where
from segweave.serve.models import Model
from segweave.serve.results import FOLDER, write_denoised, write_results
from segweave.serve.uploads import store_upload
from segweave.storage import atomic_folder, locked, remove_leftovers

LOG = logging.getLogger("segweave.serve")
TABLE, LOCK, JOBS = "jobs.sqlite", ".serving.lock", "jobs"
_SWEEP = 30.0  # seconds between two looks for jobs whose time is over
_SPARE = 1 << 28  # bytes of the disk that stay free


@dataclass(frozen=True)
class Options:
    """What a client may ask for: the model, how a NIfTI header that contradicts itself is read, the
    format of the label map, whether the probabilities and a map of uncertainty are wanted too, and
    the model that denoises first ("" for none).
    """

    model: str
    geometry: Geometry = "check"
    format: str | None = None
    probabilities: bool = False
    uncertainty: Uncertainty | None = None
    denoise: str = ""


class _StoppedError(BaseException):
    """The service stops, or the job was deleted: nothing is to be reported."""


class Service:
    """The jobs of one folder, and the thread that runs them. A context manager: inside it jobs run.

    Attributes:
        models: name → model.
        limits: what is allowed.
        folder: the folder of jobs.
        collection: where corrected masks are added to a data set; None for nowhere.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        folder: str | Path,
        limits: Limits,
        collection: Collection | None = None,
    ) -> None:
        self.models = dict(models)
        self.limits = limits
        self.folder = Path(folder)
        self.collection = collection
        self.stopping = threading.Event()
        self._wake = threading.Condition()
        self._uploading = 0
        self._progress: dict[str, tuple[float, float]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Service:
        """Take the folder, queue again what was interrupted, and start. Raises UsageError where
        another service has the folder.
        """
        silence_readers()
        with self._stack:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._stack.enter_context(
                locked(self.folder / LOCK, "serving", remedy="choose another --jobs-folder")
            )
            self.table = JobTable(self.folder / TABLE)
            self._stack.callback(self.table.close)
            self._clean()
            self._worker = threading.Thread(target=self._run, name="prediction", daemon=True)
            self._worker.start()
            self._stack.callback(self._join)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def stop(self) -> None:
        """Take no more jobs, and put the running one back after its current slice."""
        self.stopping.set()
        with self._wake:
            self._wake.notify_all()

    @property
    def is_alive(self) -> bool:
        """Whether jobs are run."""
        return self._worker.is_alive() and not self.stopping.is_set()

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue while an upload is received.

        Raises RefusedError: 429 where the queue is full, 503 where the service stops, 507 where the
        disk is full.
        """
        doing = "accepting a job"
        if not self.is_alive:
            raise RefusedError(503, doing, found="the service is stopping", retry_after=10)
        free = shutil.disk_usage(self.folder).free
        if free < _SPARE + self.limits.bytes:
            raise RefusedError(
                507,
                doing,
                expected=f"{readable_size(_SPARE + self.limits.bytes)} free on the server's disk",
                found=readable_size(free),
                remedy="ask the operator to free some space",
            )
        with self._wake:
            waiting = self.table.waiting() + self._uploading
            if waiting >= self.limits.queue:
                raise RefusedError(
                    429,
                    doing,
                    expected=f"at most {self.limits.queue} jobs that wait",
                    found=str(waiting),
                    remedy="send it again later",
                    retry_after=2,
                )
            self._uploading += 1
        try:
            yield
        finally:
            with self._wake:
                self._uploading -= 1

    def accept(self, parts: Iterable[tuple[str, IO[bytes]]], options: Options) -> Job:
        """Store an upload, read it once as a check, and queue it.

        Raises RefusedError and the errors of reading; then nothing is left of the upload.
        """
        id = secrets.token_hex(16)
        home = self.folder / JOBS / id
        with self._decoded(), atomic_folder(home) as temporary:
            image = store_upload(parts, temporary, self.limits)
            files = 1 if image.is_file() else sum(1 for _ in image.iterdir())
            name = image.relative_to(temporary).as_posix()
            case = self._read(image, options.geometry)
            session = self._session(options.model, options.denoise)
            session.check(case)
            overlapping = session.target.kind == "overlapping"
            label_name(image, overlapping=overlapping, slices=case.slices, format=options.format)
        asked = {
            "geometry": options.geometry,
            "format": options.format,
            "probabilities": options.probabilities,
            "denoise": options.denoise,
            "uncertainty": options.uncertainty,
        }
        job = Job(id, "queued", options.model, name, asked, time.time())
        self.table.add(job)
        LOG.info("job %s: accepted, model %s, %s files", id, options.model, files)
        with self._wake:
            self._wake.notify_all()
        return job

    def get(self, id: str) -> Job:
        """The job of that id. Raises RefusedError (404)."""
        job = self.table.get(id)
        if job is None:
            raise RefusedError(
                404,
                "looking for a job",
                found="no job of that id",
                remedy="it may have been deleted: results are kept for "
                f"{self.limits.keep_hours:g} hours",
            )
        return job

    def finished(self, id: str) -> Job:
        """The job of that id, which is done. Raises RefusedError: 404, or 409 for another state."""
        job = self.get(id)
        if job.state != "done":
            raise RefusedError(
                409, "reading a result", expected="a job that is done", found=job.state
            )
        return job

    def image_of(self, job: Job) -> Path:
        """The upload of a job: a file, or the folder of a DICOM series."""
        return self.folder / JOBS / job.id / job.image

    def case_of(self, job: Job) -> Case:
        """The image of a job, read again."""
        with self._decoded():
            return self._read(self.image_of(job), job.options["geometry"])

    def progress(self, id: str) -> tuple[float, float]:
        """Slices done and all slices of the running job; (0, 0) for any other."""
        return self._progress.get(id, (0.0, 0.0))

    def results(self, id: str) -> Path:
        """The folder of a job's results."""
        return self.folder / JOBS / id / FOLDER

    def delete(self, id: str) -> None:
        """Delete a job and its files; one that runs ends after its current slice.

        Raises RefusedError (404).
        """
        self.get(id)
        self.table.remove(id)
        shutil.rmtree(self.folder / JOBS / id, ignore_errors=True)
        LOG.info("job %s: deleted", id)

    def remove_rest(self, id: str) -> None:
        """Remove what was written for a job after it was deleted."""
        if self.table.get(id) is None:
            shutil.rmtree(self.folder / JOBS / id, ignore_errors=True)

    def _clean(self) -> None:
        """After a kill: queue again what was running, and remove what belongs to no job."""
        remove_leftovers(self.folder)
        again, given_up = self.table.recover(self.limits.restarts)
        for id in again:
            LOG.info("job %s: was interrupted, queued again", id)
        for id in given_up:
            LOG.info("job %s: failed, it was interrupted too often", id)
        known = {job.id for job in self.table.every()}
        jobs = self.folder / JOBS
        for path in jobs.iterdir() if jobs.is_dir() else ():
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    def _sweep(self) -> None:
        """Delete the jobs whose time is over."""
        before = time.time() - self.limits.keep_hours * 3600
        for job in self.table.every():
            if job.ended is not None and job.ended <= before:
                self.table.remove(job.id)
                shutil.rmtree(self.folder / JOBS / job.id, ignore_errors=True)
                LOG.info("job %s: deleted, its time was over", job.id)

    def _join(self) -> None:
        self.stop()
        self._worker.join()

    def _run(self) -> None:
        swept = 0.0
        while not self.stopping.is_set():
            try:
                if time.monotonic() - swept > _SWEEP or swept == 0.0:
                    self._sweep()
                    swept = time.monotonic()
                job = self.table.take()
                if job is None:
                    with self._wake:
                        if not self.stopping.is_set() and not self.table.waiting():
                            self._wake.wait(_SWEEP)
                else:
                    self._do(job)
            except Exception as error:
                # The thread must live as long as the service does.
                LOG.error("unexpected %s", where(error))
                time.sleep(1.0)

    def _do(self, job: Job) -> None:
        start = time.monotonic()
        home = self.folder / JOBS / job.id
        try:
            results = self._predict(job, home, start)
        except _StoppedError:
            self.table.put_back(job.id)
            return
        except Exception as error:
            message = public_message(error, home, self.folder)
            # It is not a fault where a running job was deleted, with its folder.
            if message.status == 500 and self.table.get(job.id) is not None:
                LOG.error("job %s: unexpected %s", job.id, where(error))
            if self.table.fail(job.id, message.status, message.text):
                LOG.info("job %s: failed (%d)", job.id, message.status)
        else:
            if self.table.finish(job.id, results):
                LOG.info("job %s: done in %.1f s", job.id, time.monotonic() - start)
        finally:
            self._progress.pop(job.id, None)
        self.remove_rest(job.id)

    def _predict(self, job: Job, home: Path, start: float) -> dict[str, str]:
        denoise = job.options.get("denoise", "")
        both, session = self._session(job.model, denoise), self.models[job.model].session
        image = home / job.image
        options: dict[str, Any] = job.options
        looked = 0.0

        def report(done: float, total: float, name: str) -> None:
            nonlocal looked
            self._progress[job.id] = (done, total)
            if self.stopping.is_set():
                raise _StoppedError
            now = time.monotonic()
            if now - start > self.limits.seconds:
                raise RefusedError(
                    422,
                    "predicting",
                    expected=f"a prediction of at most {self.limits.seconds:g} seconds",
                    found=f"{done:g} of {total:g} slices were done by then",
                    remedy="send fewer slices, or ask the operator to raise --limit-seconds",
                )
            if now - looked > 0.5:
                looked = now
                if self.table.get(job.id) is None:
                    raise _StoppedError

        def second(done: float, total: float, name: str) -> None:
            report((total + done) / 2, total, name)

        with self._decoded():
            case = self._read(image, options["geometry"])
        report(0, case.slices, "")
        quiet = None
        if denoise:
            # Each of the two networks is half of the work.
            quiet = both.denoised(case, lambda done, *rest: report(done / 2, *rest))
        prediction = session.predict(
            case if quiet is None else quiet,
            probabilities=options["probabilities"],
            # A job that an earlier version accepted has none.
            uncertainty=options.get("uncertainty"),
            progress=report if quiet is None else second,
        )
        prediction = replace(prediction, case=case)
        with atomic_folder(home / FOLDER) as folder:
            card = self.models[job.model].card
            results = write_results(
                folder, image, prediction, session.target, options["format"], card
            )
            if quiet is not None:
                target = self.models[denoise].session.target
                results |= write_denoised(folder, image, quiet, case, target)
            return results

    def _session(self, model: str, denoise: str) -> Session:
        """What predicts with a model, after the one that denoises if it is not "". Raises
        RefusedError where the service no longer has them.
        """
        if model not in self.models or (denoise and denoise not in self.models):
            raise RefusedError(
                422,
                "predicting",
                expected="a model of this service",
                found="one that it no longer has",
            )
        session = self.models[model].session
        return session.after(self.models[denoise].session) if denoise else session

    @contextmanager
    def _decoded(self) -> Iterator[None]:
        with at_most(8 * self.limits.voxels, ratio=self.limits.ratio):
            yield

    def _read(self, image: Path, geometry: Geometry) -> Case:
        """The case of an upload; its id is not taken from the client."""
        case = read_case(image, id="image", geometry=geometry, with_label=False)
        if case.image.size > self.limits.voxels:
            raise RefusedError(
                413,
                "reading an image",
                expected=f"at most {self.limits.voxels:,} voxels",
                found=f"{case.image.size:,}",
                remedy="crop the image, or send fewer slices",
            )
        return case
