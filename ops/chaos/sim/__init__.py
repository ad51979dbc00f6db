"""The whole gateway in one thread and in virtual time: real decisions and shells over a fake Kafka, Redis and provider.

Everything that happens follows from one number, the seed: latencies, crashes, pauses, losses, and the order of events.
"""
