"""Real Kafka, MinIO and schema registry for the tests, wherever the tests happen to run. See README.md."""
