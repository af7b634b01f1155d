"""What the lag monitor asks Kafka, without joining a group."""
