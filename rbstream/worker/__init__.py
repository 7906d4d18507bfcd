"""The Kafka worker: `rbstream run`."""
