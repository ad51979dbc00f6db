"""Kafka as the gateway uses it."""
