"""Servers for a demo without servers: a Kafka broker and an object store inside one Python process."""
