"""What the settings ask for, put together: bundle, filter, scorer, pipeline. Every feeder of packets starts here."""

import logging
from collections.abc import Mapping

from rbstream.errors import UsageError
from rbstream.files import data_path
from rbstream.filter import Filter, compile_where, ztf_fields
from rbstream.model.manifest import Bundle, read_bundle
from rbstream.packet.reader import PacketReader
from rbstream.packet.survey import survey_named
from rbstream.pipeline import Pipeline, Scorer
from rbstream.settings import Limits, Model, Settings

logger = logging.getLogger(__name__)

DEFAULT_BUNDLE = "models/rbnet.pt"


def open_bundle(model: Model) -> Bundle:
    """The bundle, or the one that rbstream ships. Raises ModelError; UsageError for a survey that is not known."""
    bundle = read_bundle(model.bundle or data_path(DEFAULT_BUNDLE), model.sha256)
    survey_named(bundle.manifest.survey)
    return bundle


def make_filter(settings: Settings, bundle: Bundle) -> Filter:
    """The filter that the settings ask for. Raises UsageError where the expression can't be used."""
    return _filter(settings.filter.threshold, settings.filter.where, bundle)


def make_routes(settings: Settings, bundle: Bundle) -> dict[str, Filter]:
    """The filters of the named routes, with `filter.threshold` where they have none. Raises as `make_filter`."""
    routes = {}
    for name, route in settings.routes.items():
        try:
            threshold = settings.filter.threshold if route.threshold is None else route.threshold
            routes[name] = _filter(threshold, route.where, bundle)
        except UsageError as error:
            raise UsageError(f"routes.{name}: {error}") from error
    return routes


def _filter(threshold: float | None, where: str | None, bundle: Bundle) -> Filter:
    condition = compile_where(where, ztf_fields()) if where is not None else None
    return Filter(bundle.manifest.threshold if threshold is None else threshold, condition)


def make_scorer(bundle: Bundle, model: Model, warn: bool = True) -> Scorer:
    """The bundle on its device, verified. Imports torch: only the processes that score do."""
    from rbstream.model import bundle as torch_bundle

    device = torch_bundle.choose_device(model.device)
    if warn and device == "cpu" and model.device == "auto":
        logger.warning("no CUDA device here: scoring on the CPU (--device cpu says so without this warning)")
    return torch_bundle.load_scorer(bundle, device, model.precision)


def make_pipeline(
    scorer: Scorer,
    filters: Mapping[str, Filter],
    limits: Limits,
    max_alerts: int,
    fields: frozenset[str] = frozenset(),
) -> Pipeline:
    """The pipeline for the survey and channels of the scorer's network.

    filters: by name of their route. fields: candidate fields that are wanted beside those of the filters.
    """
    manifest = scorer.manifest
    wanted = fields.union(*(each.fields for each in filters.values()))
    reader = PacketReader(survey_named(manifest.survey), manifest.channels, wanted, limits)
    return Pipeline(reader, scorer, filters, limits, max_alerts)
