"""Everything that speaks to a Kafka cluster, or to what stands beside one."""
