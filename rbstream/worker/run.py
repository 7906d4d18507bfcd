"""One worker from settings to exit: all that can be refused is refused before the first alert is read."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial

import confluent_kafka

from rbstream import __version__
from rbstream.assembly import make_filter, make_pipeline, make_routes, make_scorer, open_bundle
from rbstream.config import required
from rbstream.errors import ExitStatus
from rbstream.filter import Filter
from rbstream.health import Health
from rbstream.kafka.clients import (
    Complaints,
    consumer_config,
    make_consumer,
    make_producer,
    member_config,
    producer_config,
    progress_prefix,
    reader_config,
    with_limits,
)
from rbstream.kafka.faults import InstanceInUseError, ProducerLostError
from rbstream.kafka.patience import Patience
from rbstream.kafka.registry import open_schemas
from rbstream.kafka.topics import Cluster
from rbstream.kafka.tryout import try_clients
from rbstream.memory import keep_freed_memory
from rbstream.metrics import Metrics
from rbstream.model.manifest import Bundle
from rbstream.packet.framing import SchemaSource
from rbstream.pipeline import Pipeline, Scorer
from rbstream.settings import Settings
from rbstream.worker.bridge import Bridge, TwoClusters
from rbstream.worker.delivery import AtLeastOnce, Delivery, ExactlyOnce
from rbstream.worker.feed import Feed, OneCluster
from rbstream.worker.loop import Worker
from rbstream.worker.messages import JD, MAIN, Destinations, Encoder
from rbstream.worker.offsets import GroupOffsets
from rbstream.worker.rejects import Rejections
from rbstream.worker.scoring import Scoring
from rbstream.worker.stop import Stop

logger = logging.getLogger(__name__)

REQUIRED = ("source.bootstrap_servers", "source.topics", "sink.topic", "sink.dead_letters")
# A broker gives a dead static member up after 45 s (group.consumer.session.timeout.ms); a little more than that.
SECONDS_FOR_INSTANCE = 60.0
SECONDS_BETWEEN_TRIES = 2.0
# Each that was lost keeps some threads; a night in which so many are needs another process, or somebody to look at it.
MOST_PRODUCERS = 5
# A batch that is scored at all is done long before.
SECONDS_TO_SCORE = 30.0


def run(settings: Settings, accept_rejects: int = 0) -> None:
    """Consume, score, republish, until a signal comes.

    Raises UsageError, ModelError, KafkaFailure, RegistryError; LimitError where a safety limit stopped it.
    """
    for name in REQUIRED:
        required(settings, name)
    try_clients(settings)
    bundle = open_bundle(settings.model)
    filters = {MAIN: make_filter(settings, bundle), **make_routes(settings, bundle)}
    schemas = open_schemas(settings.source, settings.limits)
    stop, metrics = Stop(settings.shutdown.drain), Metrics()
    stop.install()
    health = Health(metrics, settings.health.stuck_after, settings.health.stuck_after + settings.sink.max_outage)
    with closing(health), ExitStack() as stack:
        port = health.start(settings.metrics.host, settings.metrics.port)
        destinations, two = _look_around(settings)
        bridge = stack.enter_context(closing(Bridge(settings))) if two else None
        make = partial(_producer, settings, destinations, metrics)
        scorer = _load(settings, bundle, metrics)
        health.set_model_ready()
        logger.info(
            "ready to read",
            extra={"version": __version__, "model": bundle.manifest.version, "delivery": settings.delivery,
                   "device": str(scorer.device), "port": port, "largest_memory_bytes": memory_bound(settings)},
        )  # fmt: skip
        rejections = Rejections(settings.rejects, {}, accept_rejects)
        with _scoring(settings, bundle, filters, scorer, destinations, schemas) as scoring:
            if bridge is not None:
                bridge.start()
            _work(settings, scoring, make, bridge, stop, health, metrics, rejections)
    logger.info("stopped; all that was read is committed or will be read again")


def memory_bound(settings: Settings) -> int:
    """What alerts may take of memory at most [bytes], beside the interpreter and the model.

    What is fetched ahead, with one answer more of each of four brokers; the batch that fills, those on their way and as
    many that wait to be delivered, each as it came and as it goes out; and what goes out once more in the producer's
    queue.
    """
    batches = 2 * settings.batch.queue + 1
    return 2 * settings.source.prefetch + 3 * batches * settings.batch.max_bytes


def _look_around(settings: Settings) -> tuple[Destinations, bool]:
    """Where results go, and whether the group lives there, away from the data. Finds out what the clusters can't do."""
    sink, source = settings.sink, settings.source
    source_config, sink_config = consumer_config(settings), producer_config(settings)
    source_cluster = Cluster("source", source_config)
    sink_cluster = Cluster("sink", sink_config)
    source_cluster.require(topic for topic in source.topics if not topic.startswith("^"))
    routes = {MAIN: str(sink.topic), **{name: route.topic for name, route in settings.routes.items()}}
    scores = [] if sink.scores is None else [sink.scores]
    topics = {*routes.values(), str(sink.dead_letters), *scores}
    sink_cluster.require(sorted(topics))
    limits = sink_cluster.message_limits(sorted(topics))
    ours = sink.properties.get("message.max.bytes")
    if ours is not None:
        limits = {topic: min(limit, int(ours)) for topic, limit in limits.items()}
    two = settings.delivery == "exactly-once" and source_cluster.id != sink_cluster.id
    return Destinations(routes, str(sink.dead_letters), sink.scores, limits), two


def _producer(settings: Settings, destinations: Destinations, metrics: Metrics) -> confluent_kafka.Producer:
    limits = destinations.limits.values()
    queue_bytes = (settings.batch.queue + 1) * settings.batch.max_bytes
    config = with_limits(producer_config(settings), max(limits), min(limits), queue_bytes)
    return make_producer(config, Complaints("producer", metrics.count_error))


def _load(settings: Settings, bundle: Bundle, metrics: Metrics) -> Scorer:
    keep_freed_memory()
    scorer = make_scorer(bundle, settings.model)
    manifest = bundle.manifest
    metrics.set_model(
        manifest.name, manifest.version, bundle.sha256, str(scorer.device), settings.model.precision
    )  # fmt: skip
    return scorer


@contextmanager
def _scoring(
    settings: Settings,
    bundle: Bundle,
    filters: dict[str, Filter],
    scorer: Scorer,
    destinations: Destinations,
    schemas: SchemaSource | None,
) -> Iterator[Scoring]:
    """The scoring threads, started. They use the scorer that was verified at the start, and after a fault a new one."""
    loaded = [scorer]

    def pipeline() -> Pipeline:
        ready = loaded.pop() if loaded else make_scorer(bundle, settings.model, warn=False)
        return make_pipeline(ready, filters, settings.limits, settings.batch.max_alerts, frozenset({JD}))

    encoder = Encoder(destinations, bundle.manifest.version)
    scoring = Scoring(pipeline, encoder, schemas, settings.limits, settings.batch.queue)
    scoring.start()
    try:
        yield scoring
    finally:
        if not scoring.close(1.0):
            threading.Thread(target=_leave, name="leave", daemon=True).start()


def _leave() -> None:
    """End the process while a batch is still being scored: the interpreter would wait for it, if need be for ever."""
    time.sleep(SECONDS_TO_SCORE)
    logger.critical("scoring does not end; leaving it")
    os._exit(ExitStatus.FAILED)


def _work(
    settings: Settings,
    scoring: Scoring,
    make: Callable[[], confluent_kafka.Producer],
    bridge: Bridge | None,
    stop: Stop,
    health: Health,
    metrics: Metrics,
    rejections: Rejections,
) -> None:
    """Run the loop; once more where a dead predecessor's membership has not been given up yet, or a producer was lost.

    make: makes a producer. bridge: where source and sink are two clusters.
    """
    patience = Patience(settings.sink.max_outage, health.tick, lambda: stop.deadline)
    give_up: float | None = None
    producers = [_ready(make(), settings, patience)]
    while True:
        feed, offsets = _feed(settings, bridge, patience, health, metrics)
        delivery: Delivery = (
            ExactlyOnce(producers[-1], offsets, patience, metrics)
            if settings.delivery == "exactly-once"
            else AtLeastOnce(producers[-1], offsets, patience)
        )
        worker = Worker(settings, feed, scoring, delivery, offsets, stop, health, metrics, rejections)
        try:
            worker.run()
            return
        except InstanceInUseError as error:
            give_up = give_up or time.monotonic() + SECONDS_FOR_INSTANCE
            if stop.requested:  # with nothing read
                return
            if time.monotonic() > give_up:
                raise
            logger.warning("%s; trying again", error)
            time.sleep(SECONDS_BETWEEN_TRIES)
        except ProducerLostError as error:
            if stop.requested or len(producers) == MOST_PRODUCERS:
                raise
            logger.warning("%s; going on with a new producer", error)
            # The lost one is kept: to let it go could wait for what it waits for.
            producers.append(_ready(make(), settings, patience))
        rejections = replace(rejections, accepted=worker.accepted)
        scoring.discard()


def _ready(producer: confluent_kafka.Producer, settings: Settings, patience: Patience) -> confluent_kafka.Producer:
    if settings.delivery == "exactly-once":
        # Ends what a predecessor of the same name left open.
        patience.insist("getting ready for transactions", producer.init_transactions)
    return producer


def _feed(
    settings: Settings, bridge: Bridge | None, patience: Patience, health: Health, metrics: Metrics
) -> tuple[Feed, GroupOffsets]:
    """Where messages come from, and what the group has committed."""
    outage = settings.sink.max_outage
    complaints = Complaints("consumer", metrics.count_error)
    metrics.kafka_silence.labels("consumer").set_function(complaints.unheard)
    if bridge is None:
        consumer = make_consumer(consumer_config(settings), complaints, polled=True)
        return OneCluster(consumer, settings.source.group_id, complaints, outage), GroupOffsets(consumer, patience)
    others = Complaints("member", metrics.count_error)
    metrics.kafka_silence.labels("member").set_function(others.unheard)
    member = make_consumer(member_config(settings), others, polled=True)
    reader = make_consumer(reader_config(settings), complaints, polled=True)
    prefix = progress_prefix(settings)
    feed = TwoClusters(member, reader, prefix, bridge, (complaints, others), outage, health.tick)
    return feed, GroupOffsets(member, patience, prefix)
