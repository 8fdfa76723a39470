"""A builder of controllers for tests."""

from labrats.controller.applied_jobs import AppliedJobs
from labrats.controller.reconcile import Controller
from labrats.files.attachments import Attachments
from labrats.files.uploads import Uploads
from labrats.index.catalog import Catalog
from labrats.index.jobs import JobIndex
from labrats.intake.admission import Admission
from labrats.intake.immediate_starts import ImmediateStarts
from labrats.metrics import Metrics
from labrats.ports import Clock, Runner, Store
from labrats.settings import EngineSettings


def a_controller(
    store: Store,
    runner: Runner,
    catalog: Catalog,
    clock: Clock,
    settings: EngineSettings,
    metrics: Metrics | None = None,
    immediate_starts: ImmediateStarts | None = None,
) -> Controller:
    """Return a controller that resolves applied jobs by `catalog`. The caller has to keep the catalog up to date."""
    metrics = metrics or Metrics()
    attachments, uploads = Attachments(settings.uploads), Uploads(settings.uploads)
    admission = Admission(store, catalog, JobIndex(), attachments, uploads, metrics, settings)
    applied_jobs = AppliedJobs(catalog, admission, clock)
    return Controller(store, runner, applied_jobs, clock, settings, metrics, immediate_starts=immediate_starts)
