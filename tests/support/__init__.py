"""What the tests share: brokers."""
