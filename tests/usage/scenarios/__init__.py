"""The types of the usage half on a real Kafka: the usage worker decides, the events worker adds parameters."""
